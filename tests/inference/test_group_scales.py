"""Quantising with a scale for every group of columns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medchat.errors import UsageError
from medchat.inference.cpu_engine.packed_matrix import GROUP_COLUMNS
from medchat.inference.group_scales import GroupedLinear, quantize_groups
from medchat.inference.quantization import LARGEST, QuantizedLinear, unpack_rows

pytestmark = pytest.mark.torch


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def error_of(kind: type[QuantizedLinear], weight: torch.Tensor, bits: int) -> float:
    layer = kind(weight.shape[1], weight.shape[0], bits, bias=False)
    layer.set_dense(weight)
    return float((layer.dense_weight() - weight).square().mean().sqrt())


@pytest.mark.parametrize(("bits", "share"), [(8, 0.75), (4, 0.6)])
def test_the_error_is_a_share_of_that_of_one_scale_a_row(bits: int, share: float) -> None:
    weight = drawn(64, 4096)
    assert error_of(GroupedLinear, weight, bits) < share * error_of(QuantizedLinear, weight, bits)


@given(st.integers(1, 9), st.integers(1, 60).map(lambda half: 2 * half), st.sampled_from([4, 8]))
@settings(max_examples=40)
def test_no_weight_is_further_off_than_one_step(rows: int, columns: int, bits: int) -> None:
    weight = drawn(rows, columns, rows * columns)
    layer = GroupedLinear(columns, rows, bits, bias=False)
    layer.set_dense(weight)
    steps = layer.weight_scale.float().abs().repeat_interleave(GROUP_COLUMNS, -1)[:, :columns]
    # A whole step for the opposite of the largest magnitude, and what rounding the scale to float16 adds.
    assert ((layer.dense_weight() - weight).abs() <= steps * (1 + 2.0**-9 * LARGEST[bits])).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_the_largest_magnitude_becomes_the_lowest_integer_whatever_its_sign(bits: int) -> None:
    weight = torch.full((2, 64), 0.25)
    weight[0, 5], weight[0, 40], weight[1, 5] = 2.0, -4.0, -1.0
    packed, scale = quantize_groups(weight, bits)
    integers = unpack_rows(packed, bits)
    lowest = -LARGEST[bits] - 1
    assert (integers[0, 5], integers[0, 40], integers[1, 5]) == (lowest, lowest, lowest)
    assert scale[0].tolist() == [2.0 / lowest, -4.0 / lowest] and scale[1, 0] == -1.0 / lowest


def test_zeros_stay_zeros_and_what_float16_cannot_scale_becomes_zero() -> None:
    weight = torch.zeros(1, 64)
    weight[0, 40] = 1e-9
    packed, scale = quantize_groups(weight, 4)
    assert not scale.any() and not unpack_rows(packed, 4).any()


def test_a_weight_beyond_float16s_scales_gives_a_scale_that_loading_refuses() -> None:
    _, scale = quantize_groups(torch.full((1, 32), 1e30), 8)
    assert torch.isinf(scale).all()


@pytest.mark.parametrize("bits", [3, 16])
def test_another_width_is_refused(bits: int) -> None:
    with pytest.raises(UsageError):
        quantize_groups(drawn(2, 32), bits)


def test_the_product_is_that_of_the_dense_weights() -> None:
    layer = GroupedLinear(40, 6, 4)
    layer.set_dense(drawn(6, 40))
    inputs = drawn(3, 40, 1)
    torch.testing.assert_close(layer(inputs), inputs @ layer.dense_weight().T)
