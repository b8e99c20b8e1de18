"""Finding and walking the recorded numbers: `golden_folders()`, `Scenario`, and the model of a folder.

Folders are found, never listed: `$MEDCHAT_GOLDENS`, else `goldens` under `$MEDCHAT_SHARED` or next to the
project, else the small set copied into the tests. Tolerances are those of the set's own README.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from locations import DATA, SHARED
from medchat_chatglm.config_file import PositionRule
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

#: Tolerances named in the README of the goldens.
LOGITS, HIDDEN, LOSS, GRADIENT_NORM = 3e-4, 5e-4, 1e-4, 1e-3

#: What the original rounds to float16, one operation after the other. In each layer: two norms; query_key_value;
#: two products and a sum of the rotation; the query's scale; scores, probabilities, context; dense; alpha times
#: the residual and the sum, twice; dense_h_to_4h; nine steps of GELU; dense_4h_to_h. After them: a norm, the head.
ROUNDINGS_A_LAYER, ROUNDINGS_AFTER = 26, 2
#: How many standard deviations the worst logit and the root mean square of all may be off. Found: up to 2.7 and 1.1.
WORST, ROOT_MEAN_SQUARE = 4, 2


#: The recordings that the repository holds, fewer than the others.
REPOSITORY_GOLDENS = DATA / "goldens"


def goldens_root() -> Path:
    """Return the folder that holds `chatglm/`."""
    if "MEDCHAT_GOLDENS" in os.environ:
        asked_for = Path(os.environ["MEDCHAT_GOLDENS"])
        assert asked_for.is_dir(), f"$MEDCHAT_GOLDENS is no folder: {asked_for}"
    wanted = Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens"))
    return wanted if (wanted / "chatglm").is_dir() else REPOSITORY_GOLDENS


def golden_folders() -> list[Path]:
    """Return the folders that hold a ChatGLM model and its recorded numbers, by name."""
    found = (path.parent for path in (goldens_root() / "chatglm").glob("*/golden.json"))
    return sorted(folder for folder in found if (folder / "config.json").is_file())


@dataclass(frozen=True)
class Scenario:
    """One recorded run of the original code on one model."""

    folder: Path
    name: str
    fields: frozenset[str]

    def __str__(self) -> str:
        return f"{self.folder.name}-{self.name}"

    def __getitem__(self, field: str) -> Tensor:
        return tensors_of(self.folder)[f"{self.name}.{field}"]

    @property
    def notes(self) -> dict[str, Any]:
        """What golden.json says about this run."""
        return dict(notes_of(self.folder).get(self.name, {}))

    @property
    def rule(self) -> PositionRule:
        """The rule it was recorded under: the v0 folders follow the Med demo but for `upstream_*`."""
        if not self.folder.name.startswith("v0"):
            return PositionRule.V11
        return PositionRule.UPSTREAM_V0 if self.name.startswith("upstream_") else PositionRule.MED_DEMO

    def model(self, dtype: torch.dtype = torch.float32) -> ChatGLMForConditionalGeneration:
        """Return the folder's model under the run's rule, in evaluation mode, without gradients kept."""
        model = model_of(self.folder, self.rule, dtype)
        model.zero_grad(set_to_none=True)
        return model


@lru_cache(maxsize=2)
def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Return all recorded tensors of a folder."""
    return load_file(folder / "golden.safetensors")


@cache
def notes_of(folder: Path) -> dict[str, Any]:
    """Return golden.json."""
    return dict(json.loads((folder / "golden.json").read_text(encoding="utf-8")))


@cache
def keys_of(folder: Path) -> tuple[str, ...]:
    """Return the names of all recorded tensors of a folder, without reading them."""
    with safe_open(folder / "golden.safetensors", "pt") as file:
        return tuple(file.keys())


def scenarios() -> Iterator[Scenario]:
    """Walk every recorded run of every folder."""
    for folder in golden_folders():
        fields: dict[str, set[str]] = {}
        for key in keys_of(folder):
            name, _, field = key.partition(".")
            fields.setdefault(name, set()).add(field)
        for name, its_fields in sorted(fields.items()):
            # `transformer.prefix_encoder.…` are weights, dotless keys belong to the folder as a whole.
            if name not in ("transformer", "dequantized") and "" not in its_fields:
                yield Scenario(folder, name, frozenset(its_fields))


def scenarios_with(*fields: str, without: tuple[str, ...] = ()) -> list[Any]:
    """Return the runs that recorded all of `fields`, as test parameters."""
    return [
        pytest.param(scenario, id=str(scenario))
        for scenario in scenarios()
        if scenario.fields.issuperset(fields) and scenario.fields.isdisjoint(without)
    ]


def stored_weights(folder: Path) -> dict[str, Tensor]:
    """Return the checkpoint of a folder, single file or shards, with its P-tuning prefix."""
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != "golden.safetensors":
            weights |= load_file(path)
    return {name: tensor for name, tensor in weights.items() if not name.endswith("rotary_emb.inv_freq")}


@lru_cache(maxsize=3)
@torch.inference_mode(False)  # the model is kept: its weights must stay trainable whoever asks first
def model_of(folder: Path, rule: PositionRule, dtype: torch.dtype) -> ChatGLMForConditionalGeneration:
    """Build the model of a folder on the meta device and give it its weights one by one."""
    config = ChatGLMConfig.from_pretrained(folder, medchat_position_rule=str(rule))
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config)
    weights = {
        name: tensor if name.endswith("weight_scale") or not tensor.is_floating_point() else tensor.to(dtype)
        for name, tensor in stored_weights(folder).items()
    }
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["transformer.word_embeddings.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    return model.eval()


def padding_mask(ids: Tensor, pad: int) -> Tensor:
    """Return [B, T], 0 for the `<pad>` a row begins with and 1 from its first other id on."""
    return (ids != pad).long().cummax(-1).values


def assert_close(actual: Tensor, recorded: Tensor, tolerance: float, what: str = "") -> None:
    """Compare element by element; the message names the largest difference."""
    assert actual.shape == recorded.shape, f"{what}: shape {tuple(actual.shape)} != {tuple(recorded.shape)}"
    difference = (actual.float() - recorded.float()).abs().max().item()
    assert difference <= tolerance, f"{what}: differs by {difference:.2e}, allowed {tolerance:.0e}"


def float16_spread(layers: int) -> float:
    """Return the standard deviation of the difference of two float16 runs, as a part of a logit's size.

    A rounding moves a value by up to half its last place either way, evenly: eps / sqrt(12) of it. Norms and
    residuals carry a relative error on as it is, so R roundings in each of two runs, which order their sums
    differently and so round independently, come to eps * sqrt(2 R / 12).
    """
    roundings = ROUNDINGS_A_LAYER * layers + ROUNDINGS_AFTER
    return float(torch.finfo(torch.float16).eps * sqrt(2 * roundings / 12))


def assert_float16_close(actual: Tensor, recorded: Tensor, layers: int) -> None:
    """Hold logits of a float16 run to those of another, by what rounding can do to logits of their size.

    The worst logit is held to k * eps * max|logit| with k = 4 sqrt(R / 6); the root mean square of
    all, where one unlucky logit does not count, to half that part of their own root mean square.
    """
    spread, recorded = float16_spread(layers), recorded.float()
    assert_close(actual, recorded, WORST * spread * recorded.abs().max().item(), "float16 logits")
    difference, size = (
        (tensor.square().mean().sqrt().item()) for tensor in (actual.float() - recorded, recorded)
    )
    allowed = ROOT_MEAN_SQUARE * spread * size
    assert difference <= allowed, f"float16 logits: root mean square {difference:.2e}, allowed {allowed:.2e}"
