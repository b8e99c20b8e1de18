"""How one parameter is updated from its gradient: AdamW, 8-bit AdamW, Adafactor.

The arithmetic is float32, a slice of the parameter at a time: temporaries stay small even with an embedding
of a gigabyte. float32 parameters are changed in place; bfloat16 ones, and their bfloat16 state, are rounded
stochastically (see `stochastic_round`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

# Stochastic rounding to bfloat16: unbiased, however small the change.
#
# A bfloat16 weight has 8 significant bits: at a learning rate of 2e-5 a weight of 0.02 would never change if
# each update were rounded to the nearest (docs/specs/training.md, "Memory"). Rounded up with a probability
# equal to the fraction cut off, it changes by the right amount in expectation.

#: The number of bits that a float32 has more than a bfloat16.
_CUT_BITS = 16


def noise_for(device: torch.device, *numbers: int) -> torch.Generator:
    """Return a generator seeded by these numbers alone.

    With the run's seed, the parameter's number and the step, a resumed run draws the same noise as an
    uninterrupted one, and no generator's state has to be saved.
    """
    digest = hashlib.blake2b(repr(numbers).encode("ascii"), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))


def stochastic_round(values: Tensor, noise: torch.Generator) -> Tensor:
    """Return float32 `values` as bfloat16, each rounded up or down so that its expected value is exact.

    Values that bfloat16 represents exactly, infinities and NaN do not change.
    """
    bits = values.view(torch.int32)
    added = torch.randint(
        0, 1 << _CUT_BITS, bits.shape, dtype=torch.int32, device=values.device, generator=noise
    )
    # The magnitude is the low 31 bits, so that adding to them rounds away from zero, whatever the sign.
    rounded = added.add_(bits).bitwise_and_(-(1 << _CUT_BITS)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


#: Elements per slice: they fit a CPU's cache, or are enough work for a GPU kernel.
SLICE_CPU, SLICE_GPU = 2**21, 2**24
#: bitsandbytes has one scale per this many 8-bit numbers, and keeps small tensors in 32 bits.
BLOCK_8BIT, SMALLEST_8BIT = 256, 4096
#: Adafactor as transformers' Trainer sets it: https://arxiv.org/abs/1804.04235, section 7.
_DECAY_POWER, _TINY_SQUARE, _LARGEST_RMS = -0.8, 1e-30, 1.0


#: The state of one parameter between steps; and a parameter group of torch's optimizers.
State = dict[str, Any]
Group = dict[str, Any]


class UpdateRule(Protocol):
    """A way of updating one parameter. `state` is empty at first and then filled by the rule."""

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, group: Group, noise: torch.Generator
    ) -> None:
        """Change `parameter` and `state` in place; `group` holds `lr`, `betas`, `eps`, `weight_decay`.

        `parameter` and `gradient` have one shape, any; a parameter is float32 or bfloat16.
        """
        ...


class AdamW:
    """torch's AdamW; its two moments in the parameter's dtype, or in float32 (`wide`)."""

    def __init__(self, *, wide: bool = False) -> None:
        self._wide = wide

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, group: Group, noise: torch.Generator
    ) -> None:
        """Take one step; see `UpdateRule`."""
        if not state:
            dtype = torch.float32 if self._wide else parameter.dtype
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=dtype)
        kept = [_flat(tensor) for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])]
        flat_gradient = _flat(gradient)
        for part in _slices(kept[0]):
            weight, mean, square = wide = [tensor[part].float() for tensor in kept]
            adamw(
                [weight],
                [flat_gradient[part].float()],
                [mean],
                [square],
                [],
                [state["step"].to(weight.device, copy=True)],
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            for tensor, value in zip(kept, wide, strict=True):
                _store(value, tensor[part], noise)
        state["step"] += 1


class Adam8bit:
    """AdamW with both moments in 8 bits, by bitsandbytes' kernels; tensors below 4096 elements in 32."""

    def __init__(self) -> None:
        self._small = AdamW(wide=True)

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, group: Group, noise: torch.Generator
    ) -> None:
        """Take one step; see `UpdateRule`."""
        if parameter.numel() < SMALLEST_8BIT:
            self._small.update(parameter, gradient, state, group, noise)
            return
        from bitsandbytes.functional import optimizer_update_8bit_blockwise

        if not state:
            state["step"] = torch.zeros(())
            blocks = math.ceil(parameter.numel() / BLOCK_8BIT)
            for moment in ("1", "2"):
                state["state" + moment] = torch.zeros_like(parameter, dtype=torch.uint8)
                state["absmax" + moment] = torch.zeros(blocks, device=parameter.device)
        state["step"] += 1
        weights, first, second = map(_flat, (parameter, state["state1"], state["state2"]))
        flat_gradient = _flat(gradient)
        signed, unsigned = _codes(parameter.device)
        for part in _slices(weights):
            weight = weights[part].float()
            blocks_of_part = slice(part.start // BLOCK_8BIT, math.ceil(part.stop / BLOCK_8BIT))
            optimizer_update_8bit_blockwise(
                "adam",
                flat_gradient[part].float(),
                weight,
                first[part],
                second[part],
                *group["betas"],
                beta3=0.0,
                alpha=0.0,
                eps=group["eps"],
                step=int(state["step"]),
                lr=group["lr"],
                qmap1=signed,
                qmap2=unsigned,
                absmax1=state["absmax1"][blocks_of_part],
                absmax2=state["absmax2"][blocks_of_part],
                weight_decay=group["weight_decay"],
            )
            _store(weight, weights[part], noise)


class Adafactor:
    """Adafactor with an outer learning rate, as transformers' Trainer sets it up; no first moment.

    transformers' own holds three float32 copies of a parameter at a time: several GB for an embedding.
    """

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, group: Group, noise: torch.Generator
    ) -> None:
        """Take one step; see `UpdateRule`. Tensors of more than two dimensions count as rows of the last."""
        rows = parameter.view(-1, parameter.shape[-1]) if parameter.dim() > 1 else parameter.view(1, -1)
        gradients = gradient.reshape(rows.shape)
        if not state:
            state["step"] = torch.zeros(())
            if parameter.dim() > 1:
                state["exp_avg_sq_row"] = torch.zeros(rows.shape[0], device=rows.device)
                state["exp_avg_sq_col"] = torch.zeros(rows.shape[1], device=rows.device)
            else:
                state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1
        kept = 1.0 - float(state["step"]) ** _DECAY_POWER
        parts = list(_row_slices(rows))
        row_scale, column_scale = _scales(gradients, parts, state, kept)

        def change(part: slice) -> Tensor:
            return (gradients[part].float() * row_scale[part]).mul_(column_scale)

        squares = sum(float(change(part).square_().sum(dtype=torch.float64)) for part in parts)
        rms = math.sqrt(squares / rows.numel())
        rate = group["lr"] / max(1.0, rms / _LARGEST_RMS)
        for part in parts:
            weight = rows[part].float()
            if group["weight_decay"]:
                weight.mul_(1.0 - group["lr"] * group["weight_decay"])
            weight.sub_(change(part).mul_(rate))
            _store(weight, rows[part], noise)


def _scales(
    gradients: Tensor, parts: list[slice], state: dict[str, Any], kept: float
) -> tuple[Tensor, Tensor]:
    """Update the running squares; return the factors of the gradient's rows [N, 1] and columns [M]."""
    if "exp_avg_sq" in state:
        square = gradients[0].float().square().add_(_TINY_SQUARE)
        state["exp_avg_sq"].mul_(kept).add_(square, alpha=1.0 - kept)
        return torch.ones(1, 1, device=gradients.device), state["exp_avg_sq"].rsqrt()
    row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
    sums = torch.zeros_like(column)
    for part in parts:
        square = gradients[part].float().square().add_(_TINY_SQUARE)
        row[part].mul_(kept).add_(square.mean(-1), alpha=1.0 - kept)
        sums += square.sum(0)
    column.mul_(kept).add_(sums, alpha=(1.0 - kept) / gradients.shape[0])
    return (row / row.mean()).rsqrt_().unsqueeze(-1), column.rsqrt()


@cache
def _codes(device: torch.device) -> tuple[Tensor, Tensor]:
    """The 256 values that an 8-bit code stands for: signed, and unsigned."""
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map(signed=True).to(device), create_dynamic_map(signed=False).to(device)


def _flat(tensor: Tensor) -> Tensor:
    """A flat view, never a copy, because it is written to. Of FSDP's sharded tensors, the local shard."""
    local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.view(-1)


def _slices(flat: Tensor) -> Iterator[slice]:
    step = SLICE_CPU if flat.device.type == "cpu" else SLICE_GPU
    for start in range(0, flat.numel(), step):
        yield slice(start, min(start + step, flat.numel()))


def _row_slices(rows: Tensor) -> Iterator[slice]:
    step = max(1, (SLICE_CPU if rows.device.type == "cpu" else SLICE_GPU) // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        yield slice(start, min(start + step, rows.shape[0]))


def _store(value: Tensor, place: Tensor, noise: torch.Generator) -> None:
    if place.dtype is torch.bfloat16:
        place.copy_(stochastic_round(value, noise))
    elif value.data_ptr() != place.data_ptr():
        place.copy_(value)
