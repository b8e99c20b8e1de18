"""Weights packed in a file: the layout needs no compiler, and torch takes the very weights that the engine takes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_engine import COMPILED
from torch import nn

from medchat.checkpoints.headers import TensorHeader, read_file_headers, safetensors_header
from medchat.errors import UsageError
from medchat.inference.cpu_engine.packed_matrix import RANGES, PackedMatrix, group_count
from medchat.inference.cpu_engine.tile_layout import pack_tiles, unpack_tiles
from medchat.inference.engine import NativeLinear, give_to_engine
from medchat.inference.group_scales import GroupedLinear, quantize_groups
from medchat.inference.quantization import unpack_rows
from medchat.inference.stored_linear import StoredLinear, expect_stored, refuse_other_width

pytestmark = pytest.mark.torch

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 140))


def matrix(rows: int, columns: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows * columns + bits)
    low, high = RANGES[bits]
    integers = random.integers(low, high + 1, (rows, columns)).astype(np.int8)
    return integers, random.standard_normal((rows, group_count(columns))).astype(np.float16)


def stored(weight: torch.Tensor, bits: int) -> StoredLinear:
    packed, scales = quantize_groups(weight, bits)
    layer = StoredLinear(weight.shape[1], weight.shape[0], bits)
    data = pack_tiles(unpack_rows(packed, bits).numpy(), scales.numpy(), bits)
    layer.weight = nn.Parameter(torch.from_numpy(data), requires_grad=False)
    return layer


@COMPILED
@given(SHAPES, st.sampled_from([4, 8]))
@settings(max_examples=30)
def test_numpy_packs_the_bytes_of_the_library(shape: tuple[int, int], bits: int) -> None:
    integers, scales = matrix(*shape, bits)
    assert np.array_equal(pack_tiles(integers, scales, bits), PackedMatrix.pack(integers, scales, bits).data)


@COMPILED
@pytest.mark.parametrize("bits", [4, 8])
def test_a_matrix_that_is_packed_in_parts_has_the_bytes_of_the_library_and_takes_little_beside(
    bits: int,
) -> None:
    integers, scales = matrix(9001, 1024, bits)
    tracemalloc.start()
    packed = pack_tiles(integers, scales, bits)
    beside = tracemalloc.get_traced_memory()[1] - packed.nbytes
    tracemalloc.stop()
    assert np.array_equal(packed, PackedMatrix.pack(integers, scales, bits).data)
    # All at once it is three times the integers.
    assert beside < 1.9 * integers.nbytes


@given(SHAPES, st.sampled_from([4, 8]))
@settings(max_examples=30)
def test_what_is_packed_comes_back(shape: tuple[int, int], bits: int) -> None:
    integers, scales = matrix(*shape, bits)
    back = unpack_tiles(pack_tiles(integers, scales, bits), *shape, bits)
    assert np.array_equal(back[0], integers)
    assert np.array_equal(back[1], scales)


def test_bytes_of_another_length_are_no_matrix() -> None:
    with pytest.raises(ValueError, match="40 x 64"):
        unpack_tiles(np.zeros(1000, np.uint8), 40, 64, 4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=COMPILED)])
def test_either_engine_takes_over_the_very_weights(engine: str, bits: int) -> None:
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(bits))
    quantised = GroupedLinear(64, 40, bits)
    quantised.set_dense(weight)
    model = nn.Sequential(stored(weight, bits))
    give_to_engine(engine, model, torch.device("cpu"))
    (layer,) = model
    assert isinstance(layer, NativeLinear if engine == "native" else GroupedLinear)
    assert torch.equal(layer.dense_weight(), quantised.dense_weight())


@COMPILED
def test_weights_at_an_odd_address_are_copied() -> None:
    layer = stored(torch.randn(16, 32), 8)
    room = torch.empty(layer.weight.numel() + 1, dtype=torch.uint8)
    moved = room[1:] if room.data_ptr() % 2 == 0 else room[:-1]
    moved.copy_(layer.weight)
    expected = NativeLinear.of_stored(layer).dense_weight()
    layer.weight = nn.Parameter(moved, requires_grad=False)
    assert torch.equal(NativeLinear.of_stored(layer).dense_weight(), expected)


def headers(model: nn.Module, **sizes: int) -> dict[str, TensorHeader]:
    return {
        f"{name}.weight": TensorHeader(f"{name}.weight", "uint8", (size,), Path("model.safetensors"))
        for name, size in sizes.items()
    }


@pytest.mark.parametrize(("size", "bits"), [(2 * 2 * 16 * 18, 4), (2 * 2 * 16 * 34, 8)])
def test_the_width_shows_in_the_length(size: int, bits: int) -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"inner": nn.Linear(64, 32)})
    assert expect_stored(model, headers(model, inner=size)) == {"inner.weight"}
    assert isinstance(model["inner"], StoredLinear)
    refuse_other_width(model, f"int{bits}")
    refuse_other_width(model, "none")
    with pytest.raises(UsageError, match=f"int{bits}"):
        refuse_other_width(model, f"int{12 - bits}")


def test_a_weight_that_an_adapter_replaces_is_not_expected_packed() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"inner": nn.Linear(64, 32)})
    assert not expect_stored(model, headers(model, inner=2 * 2 * 16 * 18), replaced=("inner.weight",))
    assert type(model["inner"]) is nn.Linear


def test_what_fits_no_linear_stays_for_the_comparison_to_refuse() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"inner": nn.Linear(64, 32), "norm": nn.LayerNorm(64)})
    assert not expect_stored(model, headers(model, inner=999, norm=2 * 2 * 16 * 18, missing=5))
    assert type(model["inner"]) is nn.Linear


def test_a_file_of_such_a_header_is_read_back(tmp_path: Path) -> None:
    made = [("a", "float32", (2, 3)), ("b", "uint8", (5,)), ("中", "bfloat16", (1,))]
    header = safetensors_header(made)
    assert len(header) % 64 == 0
    (tmp_path / "whole").write_bytes(header + bytes(24 + 5 + 2))
    found = read_file_headers(tmp_path / "whole", is_bin=False)
    assert [(one.name, one.dtype, one.shape) for one in found] == made
