"""Integer weights in the layout of the published int8 and int4 checkpoints (specification section 11).

Symmetric, one float16 scale an output row, no zero point: `weight = integer * scale`. Int4 puts two
columns in a byte, column 2j in the high nibble and 2j + 1 in the low one, each in two's complement.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medchat.errors import UsageError
from medchat.language import say

#: Bit widths the original knows, and the largest integer of each.
LARGEST = {8: 127, 4: 7}


def packed_columns(columns: int, bits: int) -> int:
    """Return how many bytes a row of `columns` weights takes. Raises UsageError for any width but 8 and 4."""
    if bits not in LARGEST or columns * bits % 8:
        raise UsageError(
            say(
                f"无法把 {columns} 列权重量化为 {bits} 位", f"cannot pack {columns} columns into {bits} bits"
            ),
            say("请使用 int8 或 int4", "use int8 or int4"),
        )
    return columns * bits // 8


def quantise_rows(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Quantise [out, in] to packed int8 [out, in * bits / 8] and scales float16 [out].

    Computed in the dtype of `weight`; float16 weights give the bytes of the published files. Rows of
    zeros get scale 0 (the original divides 0 by 0 there).
    """
    packed_columns(weight.shape[-1], bits)
    scale = (weight.abs().amax(-1) / LARGEST[bits]).half()
    divisor = torch.where(scale == 0, 1, scale).to(weight.dtype)
    integers = (weight / divisor.unsqueeze(-1)).round_().clamp_(-LARGEST[bits] - 1, LARGEST[bits])
    return pack(integers.to(torch.int8), bits), scale


def pack(integers: Tensor, bits: int) -> Tensor:
    """Pack int8 [out, in], already in range, into bytes."""
    if bits == 8:
        return integers
    return (integers[..., 0::2] << 4) | (integers[..., 1::2] & 0x0F)


def column_parts(packed: Tensor, bits: int) -> list[tuple[slice, Tensor]]:
    """Split packed weights into int8 matrices and the columns each stands for: one for int8, two for int4.

    Multiplying part by part spares interleaving the nibbles, which costs more than the product itself.
    """
    if bits == 8:
        return [(slice(None), packed)]
    return [(slice(0, None, 2), packed >> 4), (slice(1, None, 2), (packed << 4) >> 4)]


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Return the int8 integers [..., in] of packed rows."""
    if bits == 8:
        return packed
    return torch.stack([part for _, part in column_parts(packed, bits)], dim=-1).flatten(-2)


def dequantise_rows(packed: Tensor, scale: Tensor, bits: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights [..., in]; exact in float32, rounded once in any other dtype."""
    return (unpack(packed, bits).float() * scale.float().unsqueeze(-1)).to(dtype)
