"""The recorded losses, labels and gradients of ChatGLM, through the code that fine-tunes it.

The first step of a run over exactly the recorded examples: what the collators of the family make of them,
label-only logits, the Trainer's own mean and its own norm of the gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from goldens import (
    GRADIENT_NORM,
    LOSS,
    REPOSITORY_GOLDENS,
    Scenario,
    goldens_root,
    notes_of,
    scenarios,
    scenarios_with,
)
from medchat_chatglm.recipes import ChatGLMFamily
from sft_watcher import Watcher
from torch import Tensor
from transformers import PreTrainedModel

from medchat.api import SFTOptions
from medchat.training.data_loader import Collator
from medchat.training.features import Feature
from medchat.training.run_folder import open_run_folder
from medchat.training.train import train

pytestmark = [pytest.mark.golden, pytest.mark.torch]


def fresh(scenario: Scenario) -> PreTrainedModel:
    """The recorded model, its dropout off as in the recording, trainable where gradients were recorded."""
    model = copy.deepcopy(scenario.model())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    recorded = scenario.notes["grad_l2_norm"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in recorded)
    return model


def first_step(
    model: PreTrainedModel, features: Sequence[Feature], collate: Collator, folder: Path
) -> tuple[float, float]:
    """Return the loss and the norm of the gradients of one step over all features at once."""
    options = SFTOptions(
        model=folder,
        output=folder / "out",
        learning_rate=1e-30,
        num_epochs=1,
        batch_size=len(features),
        micro_batch_size=len(features),
        precision="float32",
        max_grad_norm=1e30,
        logging_steps=1,
        save_steps=-1,
        device="cpu",
    )
    watcher = Watcher()
    with open_run_folder(options, "golden") as run:
        train(model, features, (), collate, options, run, watcher)
    (step,) = watcher.progress
    assert step.grad_norm is not None
    return step.loss, step.grad_norm


def hold(scenario: Scenario, found: tuple[float, float]) -> None:
    loss, norm = found
    assert loss == pytest.approx(scenario.notes["loss"], abs=LOSS)
    assert norm == pytest.approx(scenario.notes["total_grad_l2_norm"], rel=GRADIENT_NORM)


def compared(collate: Collator, scenario: Scenario, features: Sequence[Feature]) -> Mapping[str, Tensor]:
    """Hold what the collator made against the recording: ids, labels, positions, masks."""
    made = dict(collate(features))
    length = made["input_ids"].shape[1]
    for name in ("input_ids", "labels"):
        assert torch.equal(made[name], scenario[name][:, :length]), name
        # The official script pads to a fixed length, where nothing is learned.
        assert bool((scenario["labels"][:, length:] == -100).all())
    if "attention_mask" in scenario.fields:
        assert torch.equal(made["attention_mask"], ~scenario["attention_mask"])
        assert torch.equal(made["position_ids"], scenario["position_ids"])
    else:
        assert "attention_mask" not in made and "position_ids" not in made
    return made


def family_collator(name: str, model: Any, end_id: int) -> Collator:
    tokenizer: Any = SimpleNamespace(eos_token_id=end_id)
    options = SFTOptions(model=Path(), output=Path())
    return ChatGLMFamily().collator(name, model, tokenizer, options)


def med_runs() -> list[Any]:
    return [
        pytest.param(scenario, id=str(scenario))
        for scenario in scenarios()
        if f"{scenario.name.removeprefix('loss_')}_features" in notes_of(scenario.folder)
    ]


def test_every_kind_of_recording_is_found_where_there_are_any() -> None:
    assert official_runs() and scenarios_with("loss")
    if goldens_root() == REPOSITORY_GOLDENS:
        pytest.skip("the recordings in the repository hold no run of Med-ChatGLM's script")
    assert med_runs()


@pytest.mark.parametrize("scenario", med_runs())
def test_a_step_with_the_med_collator_is_the_recorded_one(scenario: Scenario, tmp_path: Path) -> None:
    recorded = notes_of(scenario.folder)[f"{scenario.name.removeprefix('loss_')}_features"]
    features = [
        Feature(tuple(one["input_ids"][: one["seq_len"]]), tuple(one["input_ids"][one["seq_len"] :]), number)
        for number, one in enumerate(recorded, start=1)
    ]
    model = fresh(scenario)
    collate = family_collator("med", model, recorded[0]["input_ids"][-1])
    assert compared(collate, scenario, features)["input_ids"].shape == scenario["input_ids"].shape
    hold(scenario, first_step(model, features, collate, tmp_path))


def official_runs() -> list[Any]:
    return [
        one for one in scenarios_with("loss", without=("attention_mask",)) if one.values[0].name != "loss"
    ]


@pytest.mark.parametrize("scenario", official_runs())
def test_a_step_with_the_official_collator_is_the_recorded_one(scenario: Scenario, tmp_path: Path) -> None:
    """With a P-tuning prefix too: it alone has recorded gradients then, and is trained alone."""
    model = fresh(scenario)
    features = []
    for number, row in enumerate(scenario["input_ids"].tolist(), start=1):
        sop, end = row.index(model.config.bos_token_id), row.index(model.config.eos_token_id)
        features.append(Feature(tuple(row[: sop + 1]), tuple(row[sop + 1 : end + 1]), number))
    collate = family_collator("official", model, model.config.eos_token_id)
    compared(collate, scenario, features)
    hold(scenario, first_step(model, features, collate, tmp_path))


@pytest.mark.parametrize("scenario", [one for one in scenarios_with("loss") if one.values[0].name == "loss"])
def test_a_step_of_an_untied_model_is_the_recorded_one(scenario: Scenario, tmp_path: Path) -> None:
    batch = {name: scenario[name] for name in ("input_ids", "labels")}
    if "attention_mask" in scenario.fields:
        batch |= {"attention_mask": ~scenario["attention_mask"], "position_ids": scenario["position_ids"]}
    rows = [
        Feature(tuple(ids), (), number) for number, ids in enumerate(batch["input_ids"].tolist(), start=1)
    ]
    hold(scenario, first_step(fresh(scenario), rows, lambda _: batch, tmp_path))
