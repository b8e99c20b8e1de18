"""Which layers a LoRA's settings choose: as peft would choose them, without ever running the file's expressions."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_miniatures import CPU, RANK, TARGETS, by_hand, logits, matrices, write
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from refusals import refused
from transformers import LlamaForCausalLM

from medchat.checkpoints.linear_pattern import MOST_CHARACTERS, LinearPattern, PatternError
from medchat.checkpoints.lora_folder import open_lora
from medchat.checkpoints.lora_targets import by_layer, chosen_layers
from medchat.inference.adapters.lora import attach_loras, check_lora_fit

pytest_plugins = ("adapter_miniatures",)
pytestmark = pytest.mark.torch

LINEARS = [
    *(
        f"model.layers.{layer}.{part}"
        for layer in (0, 1, 11)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.experts.3.up_proj")
    ),
    "lm_head",
    "q_proj",
]


def chosen_by_peft(stated: Mapping[str, Any]) -> list[str]:
    config = LoraConfig(**stated)
    found = {name: check_target_module_exists(config, name) for name in LINEARS}
    return [name for name, result in found.items() if result and "Excluded" not in type(result).__name__]


names = st.sampled_from(
    ["q_proj", "v_proj", "up_proj", "proj", "lm_head", "layers.1.self_attn.q_proj", *LINEARS]
)
patterns = st.sampled_from(
    [
        r".*\.(q|v)_proj",
        r"model\.layers\.\d+\.self_attn\.(?:q_proj|v_proj)",
        r"^.*up_proj$",
        r"model.layers.[01].*",
        r".*",
        r"q_proj",
        r".*[^_]proj",
        r"(?P<a>model)\.layers\.1{1,2}\..+?proj",
    ]
)
stated_settings = st.fixed_dictionaries(
    {"target_modules": st.lists(names, min_size=1, max_size=4) | patterns},
    optional={
        "exclude_modules": st.lists(names, min_size=1, max_size=2) | patterns,
        "layers_to_transform": st.integers(0, 12) | st.lists(st.integers(0, 12), max_size=3),
    },
)


@settings(max_examples=300)
@given(stated=stated_settings, word=st.sampled_from([None, "layers", ["layers"], "experts", "h"]))
def test_the_layers_are_those_that_peft_would_choose(stated: dict[str, Any], word: object) -> None:
    if isinstance(stated["target_modules"], str):
        stated.pop("layers_to_transform", None)  # peft refuses the two together
    elif word is not None and stated.get("layers_to_transform"):
        stated["layers_pattern"] = word
    assert chosen_layers(stated, LINEARS) == chosen_by_peft(stated)


@settings(max_examples=400)
@given(
    text=st.text("ab.|()[]^*+?{}12,\\d", max_size=14),
    name=st.text("ab.1", max_size=6),
)
def test_a_pattern_matches_what_re_matches_or_is_refused(text: str, name: str) -> None:
    try:
        found = LinearPattern(text).fullmatch(name)
    except PatternError:
        return
    assert found == bool(re.fullmatch(text, name))


HOSTILE = [r"(a+)+$", r"(a|a)*b", r"(.*)*x", r"((a?){9}){9}a", r".*.*.*.*.*.*.*.*z", r"(a*)*(a*)*(a*)*b"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_pattern_that_keeps_re_busy_for_ever_is_matched_at_once(text: str) -> None:
    before = time.monotonic()
    assert not LinearPattern(text).fullmatch("a" * 200 + "!")
    assert time.monotonic() - before < 1


REFUSED = [r"(?=a)", r"(?!a)", r"(?<=a)b", r"(a)\1", r"\bq", r"a{2}{3}", r"a*+", "(", ")", "[", "[a", "[[:a:]]",
           "*a", "a**", r"\\"[:1], "(" * 40 + ")" * 40, "a" * (MOST_CHARACTERS + 1),
           "(a{50}){50}", "a{3,2}"]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_known_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        LinearPattern(text)


def test_the_layers_of_a_large_model_are_found_at_once() -> None:
    linears = [
        f"model.layers.{layer}.self_attn.{part}" for layer in range(200) for part in ("q_proj", "v_proj")
    ]
    table = dict.fromkeys(linears, 4)
    before = time.process_time()
    for targets in (r".*\.(q|v)_proj", ["q_proj", "v_proj"], linears):
        assert chosen_layers({"target_modules": targets, "exclude_modules": ["ghost"]}, linears) == linears
    assert by_layer(table, linears) == table
    assert time.process_time() - before < 1


# ---------------------------------------------------------------- over a model


WHOLE_NAMES = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in (0, 1) for part in "qv"]


@pytest.mark.parametrize(
    "targets", [r".*\.self_attn\.(q|v)_proj", r"model\.layers\.\d\.self_attn\.[qv]_proj", WHOLE_NAMES]
)
def test_an_adapter_with_expressions_or_whole_names_adds_its_delta(
    model: LlamaForCausalLM, tmp_path: Path, targets: object
) -> None:
    weights = matrices(1)
    expected = by_hand(model, (weights, 16 / RANK))
    attach_loras(
        model, [open_lora(write(tmp_path / "a", weights, target_modules=targets))], CPU, torch.float32
    )
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_all_linear_means_all_but_the_head(model: LlamaForCausalLM, tmp_path: Path) -> None:
    from peft import get_peft_model

    torch.manual_seed(4)
    config = LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    trained = get_peft_model(model, config).eval()
    expected = logits(trained)
    trained.save_pretrained(tmp_path / "a")
    config_file = tmp_path / "a" / "adapter_config.json"
    text = config_file.read_text()
    config_file.write_text(re.sub(r'"target_modules": \[[^\]]*\]', '"target_modules": "all-linear"', text))
    base = trained.unload()
    attach_loras(base, [open_lora(tmp_path / "a")], CPU, torch.float32)
    torch.testing.assert_close(logits(base), expected)


@pytest.mark.parametrize(
    "targets", [[*TARGETS, "ghost"], [*TARGETS, ""], [*TARGETS, "embed_tokens"], "ghost.*"]
)
def test_a_target_that_names_no_layer_is_refused_though_others_do(
    model: LlamaForCausalLM, tmp_path: Path, targets: object
) -> None:
    adapter = open_lora(write(tmp_path / "a", matrices(1), target_modules=targets))
    error = refused(lambda: check_lora_fit(model, [adapter]))
    assert "target_modules" in error.what and (not targets[-1] or targets[-1] in error.what)  # type: ignore[index]


def test_layers_that_the_settings_choose_and_the_file_lacks_are_missing(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one_layer = {name: value for name, value in matrices(1).items() if ".layers.0." in name}
    for targets in (["q_proj", "v_proj"], r".*\.(q|v)_proj"):
        adapter = open_lora(write(tmp_path / "a", one_layer, target_modules=targets))
        error = refused(lambda: attach_loras(copy.deepcopy(model), [adapter], CPU, torch.float32))  # noqa: B023
        assert "missing" in error.what
    chosen = write(tmp_path / "b", one_layer, layers_to_transform=[0], layers_pattern="layers")
    attach_loras(model, [open_lora(chosen)], CPU, torch.float32)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_modules", r"(?!x)q_proj"),
        ("exclude_modules", r"(a)\1"),
        ("layers_pattern", r"(a+)+"),
        ("layers_to_transform", ["0"]),
        ("layers_to_transform", -1),
        ("rank_pattern", {"q_proj": 2**40}),
        ("rank_pattern", {"(?=x)q": 4}),
        ("rank_pattern", {f"({number})": 4 for number in range(40)}),
        ("alpha_pattern", {"q_proj": float("nan")}),
        ("alpha_pattern", {"q_proj": "16"}),
        ("lora_alpha", float("inf")),
        ("lora_alpha", 10**30),
        ("r", 2**20),
        ("target_modules", ["q_proj"] * 20_000),
    ],
)
def test_settings_beyond_any_adapters_are_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    error = refused(lambda: open_lora(write(tmp_path / "a", matrices(1), **{key: value})))
    assert key in error.what
    if isinstance(value, str) and key == "target_modules":
        assert '["q_proj", "v_proj"]' in error.remedy


def test_a_rank_pattern_may_use_expressions(model: LlamaForCausalLM, tmp_path: Path) -> None:
    weights = {name: value[:2] if "lora_A" in name else value[:, :2] for name, value in matrices(1).items()}
    folder = write(tmp_path / "a", weights, rank_pattern={r"^model\.layers\.\d+\.self_attn\.[qv]_proj": 2})
    expected = by_hand(model, (weights, 16 / 2))
    attach_loras(model, [open_lora(folder)], CPU, torch.float32)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_of_several_patterns_the_first_counts() -> None:
    table = {"layers.1.self_attn.q_proj": 1, "q_proj": 2, r".*v_pro.": 3}
    found = by_layer(table, LINEARS)
    assert found["model.layers.1.self_attn.q_proj"] == 1 and found["model.layers.0.self_attn.q_proj"] == 2
    assert found["model.layers.0.self_attn.v_proj"] == 3 and "lm_head" not in found
