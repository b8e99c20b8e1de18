"""The ChatGLM model against numbers recorded from the original code: passes, decoding, generation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from goldens import (
    HIDDEN,
    LOGITS,
    Scenario,
    assert_close,
    assert_float16_close,
    keys_of,
    padding_mask,
    scenarios,
    scenarios_with,
    tensors_of,
)
from medchat_chatglm import position_rules
from medchat_chatglm.fused import chatglm_parts, chatglm_sequence
from medchat_chatglm.stepper import ChatGLMStepper
from native_engine import COMPILED, dense
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from medchat.inference.engine import NativeLinear, give_to_engine
from medchat.inference.group_scales import GroupedLinear
from medchat.inference.native_model import NativeModel, NativeStepper
from medchat.inference.quantization import replace_modules

pytestmark = [pytest.mark.golden, pytest.mark.torch]


def prompt_ids(scenario: Scenario) -> Tensor:
    """The ids of a run; the mask-only runs of the P-tuning folders share those of their greedy run."""
    if "input_ids" in scenario.fields:
        return scenario["input_ids"]
    return tensors_of(scenario.folder)[f"{scenario.name}_greedy.input_ids"]


def padding_of(scenario: Scenario, ids: Tensor) -> Tensor | None:
    """The padding a run was given: none for single rows, nor where pads were left to count as text."""
    if len(ids) == 1 or "internal" in scenario.name:
        return None
    config = scenario.model().config
    return padding_mask(ids, config.pad_token_id)


def one_pass(scenario: Scenario, dtype: torch.dtype = torch.float32) -> CausalLMOutputWithPast:
    """Run the prompt as generation does (or as a plain forward, for the runs called so)."""
    model, ids = scenario.model(dtype), prompt_ids(scenario)
    inputs: dict[str, Any] = {"input_ids": ids}
    if not scenario.name.startswith("forward"):
        padding, length = padding_of(scenario, ids), ids.shape[1]
        marks = position_rules.find_landmarks(ids, model.config.special_ids, scenario.rule, padding)
        inputs["position_ids"] = position_rules.prompt_positions(marks, scenario.rule, length)
        inputs["attention_mask"] = position_rules.prompt_visible(marks, scenario.rule, length, padding)
    with torch.inference_mode():
        return model(**inputs, use_cache=True, output_hidden_states=True)


def assert_logits(logits: Tensor, scenario: Scenario) -> None:
    """Compare full logits, or the recorded columns and summaries of a real vocabulary."""
    valid = (
        scenario["valid"] if "valid" in scenario.fields else torch.ones(logits.shape[:-1], dtype=torch.bool)
    )
    columns = tensors_of(scenario.folder).get("logit_columns", torch.arange(logits.shape[-1]))
    assert_close(logits[..., columns][valid], scenario["logits"][valid], LOGITS, "logits")
    if "logsumexp" in scenario.fields:
        assert_close(logits.logsumexp(-1), scenario["logsumexp"], LOGITS, "logsumexp")
        assert_close(
            logits.gather(-1, scenario["top10_ids"]), scenario["top10_values"], LOGITS, "top 10 logits"
        )
        largest = logits.gather(-1, scenario["argmax"].unsqueeze(-1)).squeeze(-1)
        assert_close(largest, logits.amax(-1), LOGITS, "the recorded best token")


@pytest.mark.parametrize("scenario", scenarios_with("logits", "input_ids", without=("rows",)))
def test_a_full_pass_gives_the_recorded_logits(scenario: Scenario) -> None:
    assert_logits(one_pass(scenario).logits, scenario)


@pytest.mark.parametrize("scenario", scenarios_with("position_ids", "attention_mask", without=("loss",)))
def test_positions_and_masks_are_the_recorded_ones(scenario: Scenario) -> None:
    ids, rule = prompt_ids(scenario), scenario.rule
    padding = padding_of(scenario, ids)
    marks = position_rules.find_landmarks(ids, scenario.model().config.special_ids, rule, padding)
    direct = scenario.name.startswith("forward")
    visible = position_rules.prompt_visible(marks, rule, ids.shape[1], padding, direct=direct)
    assert torch.equal(position_rules.prompt_positions(marks, rule, ids.shape[1]), scenario["position_ids"])
    assert torch.equal(~visible, scenario["attention_mask"])


@pytest.mark.parametrize("scenario", scenarios_with("hidden_states"))
def test_hidden_states_are_the_recorded_ones(scenario: Scenario) -> None:
    states = one_pass(scenario).hidden_states
    assert states is not None
    assert_close(torch.stack(states), scenario["hidden_states"], HIDDEN, "hidden states")


@pytest.mark.parametrize("scenario", scenarios_with("cache_key_layer0"))
def test_cached_keys_and_values_are_the_recorded_ones(scenario: Scenario) -> None:
    layers = one_pass(scenario).past_key_values.layers
    for place, layer in (("layer0", layers[0]), ("last", layers[-1])):
        # Recorded as [T, B, heads, d].
        assert_close(layer.keys.permute(2, 0, 1, 3), scenario[f"cache_key_{place}"], HIDDEN, f"keys {place}")
        assert_close(
            layer.values.permute(2, 0, 1, 3), scenario[f"cache_value_{place}"], HIDDEN, f"values {place}"
        )


@pytest.mark.parametrize("scenario", scenarios_with("rows", "input_ids"))
def test_a_long_prompt_gives_the_recorded_logits(scenario: Scenario) -> None:
    logits = one_pass(scenario).logits[0, scenario["rows"]]
    assert_logits(logits, scenario)


def float16_runs() -> list[Any]:
    return [
        pytest.param(scenario, id=str(scenario))
        for scenario in scenarios()
        if scenario.name.endswith("_fp16run")
    ]


def float16_logits(recorded: Scenario) -> Tensor:
    """Return our float16 logits where a float16 run recorded its own."""
    name = recorded.name.removesuffix("_fp16run")
    (exact,) = (other for other in scenarios() if (other.folder, other.name) == (recorded.folder, name))
    logits = one_pass(exact, torch.float16).logits
    return logits[0, exact["rows"]] if "rows" in exact.fields else logits


@pytest.mark.parametrize("scenario", float16_runs())
def test_float16_stays_near_the_recorded_float16_run(scenario: Scenario) -> None:
    logits = float16_logits(scenario)
    assert torch.isfinite(logits).all()
    assert_float16_close(logits, scenario["logits"], scenario.model().config.num_layers)


@pytest.mark.parametrize("scenario", scenarios_with("logits", "input_ids", without=("rows", "logsumexp")))
def test_float16_stays_near_the_recorded_float32_run(scenario: Scenario) -> None:
    valid = scenario["valid"] if "valid" in scenario.fields else ...
    logits = one_pass(scenario, torch.float16).logits[valid]
    assert_float16_close(logits, scenario["logits"][valid], scenario.model().config.num_layers)


FAULTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a bias left out": ("layers.0.attention.query_key_value.bias", torch.zeros_like),
    "an activation 2% too strong": ("layers.1.mlp.dense_h_to_4h.weight", lambda weight: weight * 1.02),
    "rows in another order": ("layers.1.attention.dense.weight", lambda weight: weight.flip(0)),
    "a norm without its weight": ("final_layernorm.weight", torch.ones_like),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "scenario", scenarios_with("logits", "input_ids", without=("rows", "logsumexp", "valid"))
)
def test_a_wrong_model_is_not_near_in_float16(scenario: Scenario, fault: str) -> None:
    name, changed = FAULTS[fault]
    if scenario.model().config.num_layers > 3 or scenario.model().config.quantization_bit:
        pytest.skip("one fault is little among many layers; a quantised weight is no float")
    weight = scenario.model(torch.float16).get_parameter(f"transformer.{name}")
    right = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(changed(right))
        logits = one_pass(scenario, torch.float16).logits
        with pytest.raises(AssertionError, match="float16 logits"):
            assert_float16_close(logits, scenario["logits"], scenario.model().config.num_layers)
    finally:
        with torch.no_grad():
            weight.copy_(right)


@pytest.mark.parametrize("scenario", scenarios_with("forced_ids"))
def test_stepping_with_a_cache_gives_the_recorded_logits(scenario: Scenario) -> None:
    assert_logits(steps(ChatGLMStepper(scenario.model()), scenario), scenario)


@COMPILED
@pytest.mark.parametrize("scenario", scenarios_with("forced_ids"))
def test_the_native_engine_gives_the_recorded_logits_or_those_of_its_own_weights(scenario: Scenario) -> None:
    """Those that were recorded with quantised weights; for others, torch's with what they are quantised to."""
    model = copy.deepcopy(scenario.model()).requires_grad_(False)
    quantised = bool(model.config.quantization_bit)
    if not quantised:
        list(replace_modules(model.transformer.layers, nn.Linear, grouped))
    give_to_engine("native", model, torch.device("cpu"))
    native = NativeModel(partial(chatglm_parts, model.eval()), partial(chatglm_sequence, model))
    assert native.decoder()
    found = steps(NativeStepper(native, ChatGLMStepper(model)), scenario)
    if quantised:
        assert_logits(found, scenario)
    else:
        list(replace_modules(model, NativeLinear, dense))
        assert_close(found, steps(ChatGLMStepper(model), scenario), LOGITS, "logits")


def steps(stepper: ChatGLMStepper | NativeStepper, scenario: Scenario) -> Tensor:
    stepper.prefill(scenario["prompt_ids"][0].tolist())
    return torch.stack([torch.as_tensor(stepper.advance(token)) for token in scenario["forced_ids"].tolist()])


def grouped(layer: nn.Linear) -> GroupedLinear:
    made = GroupedLinear(layer.in_features, layer.out_features, 8, layer.bias is not None)
    made.set_dense(layer.weight)
    made.bias = layer.bias
    return made


@pytest.mark.parametrize("scenario", scenarios_with("forced_ids"))
def test_step_positions_are_the_recorded_ones(scenario: Scenario) -> None:
    prompt = scenario["prompt_ids"]
    marks = position_rules.find_landmarks(prompt, scenario.model().config.special_ids, scenario.rule)
    steps = [
        position_rules.step_positions(marks, prompt.shape[1] + step + 1)[0, :, 0]
        for step in range(len(scenario["forced_ids"]))
    ]
    assert torch.equal(torch.stack(steps), scenario["step_position_ids"])


@pytest.mark.parametrize("scenario", scenarios_with("forced_ids"))
def test_feeding_all_given_tokens_at_once_equals_one_by_one(scenario: Scenario) -> None:
    model, prompt, forced = scenario.model(), scenario["prompt_ids"], scenario["forced_ids"]
    stepper = ChatGLMStepper(model)
    stepper.prefill(prompt[0].tolist())
    with torch.inference_mode():
        logits = model(
            forced[None], position_ids=scenario["step_position_ids"].T[None], past_key_values=stepper.cache
        ).logits[0]
    assert_logits(logits, scenario)


def greedy_budget(scenario: Scenario, ids: Tensor) -> int:
    """Tokens to ask for: a few more than recorded where the recording ended by itself."""
    new = scenario["sequences"].shape[1] - ids.shape[1]
    ended = (scenario["sequences"][:, ids.shape[1] :] == scenario.notes["eos_token_id"]).any(-1).all()
    return new + 4 if ended else new


@pytest.mark.parametrize("scenario", scenarios_with("sequences"))
@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no-cache"])
def test_generate_writes_the_recorded_ids(scenario: Scenario, cached: bool) -> None:
    model, ids = scenario.model(), scenario["input_ids"]
    padding = padding_of(scenario, ids)
    sequences = model.generate(
        ids,
        attention_mask=torch.ones_like(ids) if padding is None else padding,
        do_sample=False,
        max_new_tokens=greedy_budget(scenario, ids),
        eos_token_id=scenario.notes["eos_token_id"],
        use_cache=cached,
    )
    assert sequences.tolist() == scenario["sequences"].tolist()


@pytest.mark.parametrize("scenario", scenarios_with("sequences"))
def test_stepping_greedily_writes_the_recorded_ids(scenario: Scenario) -> None:
    model, ids, end = scenario.model(), scenario["input_ids"], scenario.notes["eos_token_id"]
    padding = padding_of(scenario, ids)
    for number, row in enumerate(ids):
        prompt = row if padding is None else row[padding[number].bool()]
        recorded = scenario["sequences"][number, ids.shape[1] :].tolist()
        if end in recorded:
            recorded = recorded[: recorded.index(end) + 1]
        stepper = ChatGLMStepper(model)
        logits, written = stepper.prefill(prompt.tolist()), []
        for _ in recorded:
            written.append(int(logits.argmax()))
            logits = stepper.advance(written[-1])
        assert written == recorded


#: Every field that some golden test above or in the sibling files compares.
COMPARED = {
    "attention_mask", "position_ids", "logits", "hidden_states", "cache_key_layer0", "cache_key_last",
    "cache_value_layer0", "cache_value_last", "forced_ids", "step_position_ids", "sequences", "logsumexp",
    "argmax", "top10_values", "top10_ids", "loss", "labels",
}  # fmt: skip
#: Fields that are inputs or say where to look.
INPUTS = {"input_ids", "prompt_ids", "valid", "rows"}


def test_no_recorded_field_is_left_uncompared() -> None:
    found = list(scenarios())
    assert found, "no golden folder was found"
    for scenario in found:
        assert scenario.fields - INPUTS, f"{scenario}: nothing recorded"
        left = {field for field in scenario.fields - INPUTS - COMPARED if not field.startswith("grad.")}
        assert not left, f"{scenario}: {left} recorded but not compared"
        known = {"prefix_past_key_values", "logit_columns"}
        loose = {key for key in keys_of(scenario.folder) if "." not in key} - known
        assert not loose, f"{scenario.folder.name}: {loose} recorded but not compared"
