"""Losses, gradients and training batches of ChatGLM against numbers recorded from the original code."""

from __future__ import annotations

import pytest
import torch
from goldens import GRADIENT_NORM, LOSS, Scenario, assert_close, notes_of, scenarios, scenarios_with
from medchat_chatglm.collators import IGNORED, Batch, MedCollator, OfficialCollator, TrainingSample
from torch import Tensor

pytestmark = [pytest.mark.golden, pytest.mark.torch]


def recorded_batch(scenario: Scenario) -> Batch:
    """The batch a loss was computed on; masks and positions only where they were given to the model."""
    batch = {name: scenario[name] for name in ("input_ids", "labels")}
    if "attention_mask" in scenario.fields:
        batch["attention_mask"] = ~scenario["attention_mask"]
        batch["position_ids"] = scenario["position_ids"]
    return batch


def gradients(scenario: Scenario) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and the gradient of every parameter that has one, each once."""
    model = scenario.model()
    loss = model(**recorded_batch(scenario)).loss
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("scenario", scenarios_with("loss"))
def test_the_loss_is_the_recorded_one(scenario: Scenario) -> None:
    with torch.inference_mode():
        loss = scenario.model()(**recorded_batch(scenario)).loss
    assert loss.dtype == torch.float32
    assert_close(loss.reshape(1), scenario["loss"], LOSS, "loss")
    assert abs(float(loss) - scenario.notes["loss"]) <= LOSS


@pytest.mark.parametrize("scenario", scenarios_with("loss"))
def test_projecting_the_label_positions_alone_gives_the_same_loss(scenario: Scenario) -> None:
    batch = recorded_batch(scenario)
    labels = torch.nn.functional.pad(batch.pop("labels"), (0, 1), value=IGNORED)[:, 1:]
    used = labels != IGNORED
    assert int(used.sum()) == scenario.notes["n_label_positions_used"]
    with torch.inference_mode():
        output = scenario.model()(**batch, logits_to_keep=used, shift_labels=labels[used])
    assert output.logits.shape[0] == int(used.sum())
    assert_close(output.loss.reshape(1), scenario["loss"], LOSS, "loss")


@pytest.mark.parametrize("scenario", scenarios_with("loss"))
def test_gradients_and_their_norms_are_the_recorded_ones(scenario: Scenario) -> None:
    _, found = gradients(scenario)
    norms = {name: found[name].double().norm().item() for name in scenario.notes["grad_l2_norm"]}
    for name, norm in scenario.notes["grad_l2_norm"].items():
        assert norms[name] == pytest.approx(norm, rel=GRADIENT_NORM), name
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(scenario.notes["total_grad_l2_norm"], rel=GRADIENT_NORM)
    for field in scenario.fields:
        if field.startswith("grad."):
            recorded = scenario[field]
            allowed = GRADIENT_NORM * recorded.abs().max().item()
            assert_close(found[field.removeprefix("grad.")], recorded, allowed, field)


@pytest.mark.parametrize("scenario", scenarios_with("loss"))
def test_gradient_checkpointing_changes_no_gradient(scenario: Scenario) -> None:
    _, plain = gradients(scenario)
    kept = {name: gradient.clone() for name, gradient in plain.items()}
    model = scenario.model()
    model.gradient_checkpointing_enable()
    dropout = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    model.train()
    for module in dropout:
        module.eval()
    try:
        _, again = gradients(scenario)
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    assert again.keys() == kept.keys()
    for name, gradient in again.items():
        assert_close(gradient, kept[name], 1e-5 * kept[name].abs().max().item() + 1e-9, name)


def med_collator_runs() -> list[object]:
    return [
        pytest.param(scenario, id=str(scenario))
        for scenario in scenarios()
        if features_key(scenario) in notes_of(scenario.folder)
    ]


def features_key(scenario: Scenario) -> str:
    return scenario.name.removeprefix("loss_") + "_features"


@pytest.mark.parametrize("scenario", med_collator_runs())
def test_the_med_collator_makes_the_recorded_batch(scenario: Scenario) -> None:
    features = notes_of(scenario.folder)[features_key(scenario)]
    collate = MedCollator(end_id=features[0]["input_ids"][-1])
    batch = collate([TrainingSample(tuple(one["input_ids"]), one["seq_len"]) for one in features])
    assert batch.keys() == {"input_ids", "labels", "position_ids", "attention_mask"}
    for name, recorded in recorded_batch(scenario).items():
        assert torch.equal(batch[name], recorded), name


@pytest.mark.parametrize("scenario", scenarios_with("loss", without=("attention_mask",)))
def test_the_official_preprocessing_makes_the_recorded_batch(scenario: Scenario) -> None:
    config = scenario.model().config
    pairs = []
    for row in scenario["input_ids"].tolist():
        sop, end = row.index(config.bos_token_id), row.index(config.eos_token_id)
        pairs.append((row[: sop - 1], row[sop + 1 : end]))
    max_prompt = max(len(prompt) for prompt, _ in pairs) + 1
    collate = OfficialCollator(config, max_prompt, scenario["input_ids"].shape[1] - max_prompt)
    for name, made in collate(pairs).items():
        assert torch.equal(made, scenario[name]), name
