"""Names, shapes and values of tensors must be those of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_files import LAYOUTS, write_weights
from small_checkpoints import CPU, TIED, Small, load_refused, load_small, small_weights
from torch import nn

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.errors import CheckpointError
from medchat.inference import shards
from medchat.inference.load_weights import Conversion, Placement, assign, loaded_weight_bytes

pytestmark = pytest.mark.torch


def test_missing_tensors_are_named_before_any_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = small_weights()
    del weights["norm.bias"]
    (file,) = write_weights(tmp_path, weights, "safetensors")
    monkeypatch.setattr(
        "medchat.inference.load_weights.read_tensors", lambda *_: pytest.fail("read a weight")
    )
    error = load_refused(tmp_path)
    assert "missing norm.bias" in error.what and error.where == str(file)


def test_unexpected_tensors_are_named_with_their_number(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {f"extra.{n}": torch.zeros(1) for n in range(5)}, "sharded-bin")
    error = load_refused(tmp_path)
    assert "extra.0" in error.what and "(5)" in error.what and "missing" not in error.what
    assert error.where.endswith(".index.json")


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"embed.weight": torch.zeros(8, 4)}, "bin")
    error = load_refused(tmp_path)
    assert "embed.weight 8x4" in error.what and "7x4" in error.what


def test_integers_in_the_place_of_weights_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"embed.weight": torch.zeros(7, 4, dtype=torch.int8)}, "bin")
    assert "int8" in load_refused(tmp_path).what


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused_naming_tensor_and_file(
    tmp_path: Path, layout: str, value: float
) -> None:
    weights = small_weights()
    weights["norm.bias"][2] = value
    files = write_weights(tmp_path, weights, layout)
    error = load_refused(tmp_path)
    assert "norm.bias" in error.what and error.where in map(str, files)


def test_a_value_beyond_float16_is_told_apart_from_a_broken_one(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"norm.bias": torch.full((4,), 7e4)}, "safetensors")
    with pytest.raises(CheckpointError, match="float16") as info:
        load_small(tmp_path, torch.float16)
    assert "--dtype bfloat16" in info.value.remedy
    load_small(tmp_path, torch.bfloat16)


def test_ignored_renamed_kept_and_optional_names_follow_the_placement(tmp_path: Path) -> None:
    weights = {f"model.{name}": tensor for name, tensor in small_weights().items() if name != "scale"}
    weights["model.rotary.inv_freq"] = torch.tensor([float("nan")])
    write_weights(tmp_path, weights, "sharded-bin")
    model = load_small(
        tmp_path,
        torch.bfloat16,
        ignore=("*.inv_freq",),
        keep=("norm.*",),
        optional=("scale",),
        rename=lambda name: name.removeprefix("model."),
    )
    assert model.norm.weight.dtype == torch.float32 and model.embed.weight.dtype == torch.bfloat16
    assert model.scale.is_meta


def test_a_conversion_replaces_its_tensor_on_the_way_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = small_weights()
    weights["both"] = torch.stack((weights.pop("norm.weight"), weights.pop("norm.bias")), dim=1)
    write_weights(tmp_path, weights, "bin")
    split = Conversion(
        (4, 2),
        ("norm.weight", "norm.bias"),
        lambda rows: {"norm.weight": rows[:, 0], "norm.bias": rows[:, 1]},
    )
    monkeypatch.setattr(shards, "PIECE_BYTES", 16)  # two rows at a time
    model = load_small(tmp_path, conversions={"both": split})
    assert torch.equal(model.norm.weight, weights["both"][:, 0])
    assert torch.equal(model.norm.bias, weights["both"][:, 1])


def test_a_tied_head_of_the_file_is_not_read(tmp_path: Path) -> None:
    broken = {"head.weight": torch.full((7, 4), float("nan"))}
    write_weights(tmp_path, small_weights() | broken, "bin")
    model = load_small(tmp_path)
    assert model.head.weight is model.embed.weight


def test_a_tied_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"head.weight": torch.zeros(8, 4)}, "bin")
    assert "head.weight 8x4" in load_refused(tmp_path).what


def test_what_has_its_value_already_is_left_alone(tmp_path: Path) -> None:
    weights = small_weights()
    write_weights(tmp_path, {"norm.bias": weights["norm.bias"]}, "safetensors")
    model = Small()
    before = model.norm.weight
    model.norm.bias = nn.Parameter(torch.empty(4, device="meta"))
    checkpoint = open_checkpoint(tmp_path)
    assign(model, checkpoint, read_headers(checkpoint), Placement(torch.float32, CPU))
    assert model.norm.weight is before and torch.equal(model.norm.bias, weights["norm.bias"])


def test_weight_bytes_counts_each_memory_once() -> None:
    with torch.device("meta"):
        model = Small()
    half = Placement(torch.float16, CPU, keep=("norm.*",), tied=TIED)
    assert loaded_weight_bytes(model, half) == 7 * 4 * 2 + 8 * 4 + 2 + 3 * 8
