"""Linears quantised with a scale for every 32 columns: half the error of one scale a row, for the native engine.

They are filled like any quantised linear while weights are read; the engine then lays them out for itself. Their own
product, by dense weights, is the reference for the engine's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medchat.inference.cpu_engine.packed_matrix import GROUP_COLUMNS, group_count
from medchat.inference.quantization import LARGEST, QuantizedLinear, pack_rows, packed_columns, unpack_rows

#: How many weights are quantised at a time: they stay in the cache from the first step to the last.
_VALUES_AT_ONCE = 2**18


def quantize_groups(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Quantise [rows, columns] to packed int8 [rows, columns * bits / 8] and scales float16 [rows, groups].

    The value of the largest magnitude in a group becomes the lowest integer, whose magnitude is one more than the
    highest's; scales may be negative. Groups of zeros get scale 0. Raises UsageError for any width but 8 and 4.
    """
    rows, columns = weight.shape
    packed = torch.empty(rows, packed_columns(columns, bits), dtype=torch.int8, device=weight.device)
    scale = torch.empty(rows, group_count(columns), dtype=torch.float16, device=weight.device)
    step = max(1, _VALUES_AT_ONCE // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        packed[part], scale[part] = _quantised(weight[part], bits)
    return packed, scale


def _quantised(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    rows, columns = weight.shape
    values = weight.float()
    if columns % GROUP_COLUMNS:
        values = functional.pad(values, (0, -columns % GROUP_COLUMNS))
    groups = values.view(rows, -1, GROUP_COLUMNS)
    lowest = -LARGEST[bits] - 1
    least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = (torch.where(most > -least, most, least) / lowest).half()
    inverse = torch.where(scale == 0, 0, 1 / scale.float())
    integers = (groups * inverse).round_().clamp_(lowest, LARGEST[bits])
    return pack_rows(integers.to(torch.int8).flatten(1)[:, :columns], bits), scale[..., 0]


class GroupedLinear(QuantizedLinear):
    """A quantised linear whose `weight_scale` is float16 [rows, groups]."""

    quantizer = staticmethod(quantize_groups)

    def __init__(self, inputs: int, outputs: int, bits: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bits, bias)
        scales = torch.zeros(outputs, group_count(inputs), dtype=torch.float16)
        self.weight_scale = nn.Parameter(scales, requires_grad=False)

    @classmethod
    def like(cls, layer: QuantizedLinear) -> GroupedLinear:
        """Return a layer of the same shape and width, still without values."""
        return cls.of_linear(layer, layer.bits)

    @classmethod
    def of_linear(cls, layer: nn.Linear, bits: int) -> GroupedLinear:
        """Return a layer of the same shape in `bits` bits, still without values."""
        with torch.device("meta"):
            return cls(layer.in_features, layer.out_features, bits, layer.bias is not None)

    def dense_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights [rows, columns]; exact in float32."""
        spread = self.weight_scale.float().repeat_interleave(GROUP_COLUMNS, -1)[:, : self.in_features]
        return (unpack_rows(self.weight, self.bits).float() * spread).to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out] in the dtype of `input`."""
        return functional.linear(input, self.dense_weight(input.dtype), self.bias)
