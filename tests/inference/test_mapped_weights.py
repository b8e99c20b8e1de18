"""Tensors taken from mapped files are those that torch loads, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from native_engine import COMPILED
from safetensors.torch import save_file
from torch import Tensor

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.inference.cpu_engine.packed_matrix import PackedMatrix
from medchat.inference.mapped_weights import MappedWeights, rounded, widened

pytestmark = pytest.mark.torch

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def mapped(folder: Path, tensors: Mapping[str, Tensor], dtype: str = "bfloat16") -> MappedWeights:
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(folder)
    return MappedWeights(checkpoint, read_headers(checkpoint), dtype)


def floats() -> Tensor:
    """Return finite numbers of every size, those half-way between two of a narrower type among them."""
    random = torch.Generator().manual_seed(2)
    bits = torch.randint(-(2**31), 2**31, (50_000,), generator=random).to(torch.int32)
    halfway = torch.cat([bits & -0x8000, bits & -0x1000])
    found = torch.cat([bits, halfway, halfway + 1]).view(torch.float32)
    return found[found.isfinite() & (found.abs() < 60_000)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_narrow_number_is_widened_as_torch_does_it(dtype: str) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    found = widened(every.view(torch.uint8).numpy(), dtype)
    assert np.array_equal(found, every.view(TYPES[dtype]).float().numpy(), equal_nan=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_are_rounded_as_torch_does_it(dtype: str) -> None:
    values = floats()
    assert np.array_equal(rounded(values.numpy(), dtype), values.to(TYPES[dtype]).float().numpy())


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_not_finite_stays_so_and_is_told_of_by_whoever_chooses_a_token(dtype: str) -> None:
    odd = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32)
    assert not np.isfinite(rounded(odd.view(np.float32), dtype)).any()


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_vectors_and_rows_are_those_that_torch_would_load(tmp_path: Path, stored: str, dtype: str) -> None:
    table = floats()[: 7 * 30].view(7, 30).to(TYPES[stored])
    weights = mapped(tmp_path, {"norm": table[0].clone(), "table": table, "pad": table[0, :1].clone()}, dtype)
    loaded = table.to(TYPES[dtype]).float().numpy()
    assert np.array_equal(weights.vector("norm"), loaded[0])
    assert np.array_equal(weights.vector("norm", exact=True), table[0].float().numpy())
    assert np.array_equal(weights.embedding("table", 30)([6, 0, 6]), loaded[[6, 0, 6]])
    assert weights.vector("norm").flags.aligned and weights.vector("norm", exact=True).flags.aligned
    with pytest.raises(ValueError, match=r"left over.*pad"):
        weights.require_all_taken()
    weights.vector("pad")
    weights.require_all_taken()


@COMPILED
@pytest.mark.parametrize("bits", [8, 4])
def test_a_packed_matrix_lies_in_the_file_wherever_that_puts_it(tmp_path: Path, bits: int) -> None:
    integers = np.random.default_rng(1).integers(-8, 8, (33, 70)).astype(np.int8)
    packed = PackedMatrix.pack(integers, np.ones((33, 3), np.float16), bits)
    pad, matrix = torch.zeros(1, dtype=torch.uint8), torch.from_numpy(packed.data)
    weights = mapped(tmp_path, {"a.weight": matrix, "b.weight": pad, "c.weight": matrix.clone()})
    for name in ("a", "c"):  # behind one byte, one of them begins at an odd address
        assert np.array_equal(weights.linear(name, 33, 70).matrix.unpack()[0], integers)
    assert weights.quantization == f"int{bits}" and weights.count == 2 * 33 * 70
    for rows, columns in ((33, 97), (49, 70), (70, 33)):
        with pytest.raises(ValueError, match=r"a\.weight"):
            weights.packed("a.weight", rows, columns)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    weights = mapped(
        tmp_path,
        {
            "nan": torch.tensor([1.0, float("nan")]),
            "integers": torch.tensor([1, 2]),
            "table": torch.zeros(2, 2),
        },
    )
    for name in ("nan", "integers", "none"):
        with pytest.raises(ValueError, match=name):
            weights.vector(name)
    with pytest.raises(ValueError, match="columns"):
        weights.embedding("table", 3)


def test_a_file_made_shorter_before_it_was_mapped_is_refused(tmp_path: Path) -> None:
    mapped(tmp_path, {"norm": torch.ones(1000)})
    checkpoint = open_checkpoint(tmp_path)
    headers, file = read_headers(checkpoint), checkpoint.files[0]
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError):
        MappedWeights(checkpoint, headers, "float32").vector("norm")
