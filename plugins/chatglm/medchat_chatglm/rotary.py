"""The 2-D rotary embedding (docs/specs/models.md, "Rotary embedding").

Each head is split in two halves: the first is rotated by the position, the second by the block position.
Within a half, component j is paired with component j + width / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medchat_chatglm.native import turns_are_half

_BASE = 10000.0


def inverse_frequencies(half_width: int, device: torch.device | str | None = None) -> Tensor:
    """Return the [half_width / 2] frequencies of one half-head in radians per position, rounded to float16.

    The original has them in float16 even in float32 models, and the goldens are sensitive to it.
    """
    exponents = torch.arange(0, half_width, 2, dtype=torch.float32, device=device) / half_width
    return (1.0 / _BASE**exponents).half()


def turn_table(positions: Tensor, half_width: int, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine for `positions` [...], each [..., half_width / 2] in `precision`.

    float16 rounds position, angle and result as the original did on a GPU; float32 rounds the frequencies
    only.
    """
    frequencies = inverse_frequencies(half_width, positions.device).to(precision)
    angles = positions.to(precision).unsqueeze(-1) * frequencies
    return angles.cos(), angles.sin()


def table_precision(rotary_precision: str, compute: torch.dtype) -> torch.dtype:
    """Return the dtype of the table for a model computing in `compute` (`turns_are_half`)."""
    half = turns_are_half(rotary_precision, str(compute).removeprefix("torch."))
    return torch.float16 if half else torch.float32


def turn(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate queries or keys.

    `states` is [B, T, ..., head_dim]; `cosine` and `sine` are [B, T, 1..., 2, head_dim / 4], the axis
    of 2 being (position, block position). Computed in the wider of the
    two dtypes, returned in that of `states`.
    """
    quarter = cosine.shape[-1]
    first, second = states.view(*states.shape[:-1], 2, 2, quarter).unbind(-2)
    turned = torch.stack((first * cosine - second * sine, second * cosine + first * sine), dim=-2)
    return turned.flatten(-3).to(states.dtype)
