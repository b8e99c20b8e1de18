"""Stochastic rounding to bfloat16: right on average, however small the change.

A bfloat16 weight has 8 significant bits: at a learning rate of 2e-5 one of 0.02 would never move if each
update were rounded to the nearest (specs/sft.md, memory). Rounded up with a probability equal to the
fraction cut off, it moves as far as it should in expectation.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

#: The bits of a float32 that bfloat16 has no room for.
_CUT_BITS = 16


def noise_for(device: torch.device, *numbers: int) -> torch.Generator:
    """Return a generator that depends on these numbers alone.

    Given the seed of the run, the parameter and the step, a resumed run draws what an uninterrupted one
    would have, with no generator's state to be saved.
    """
    digest = hashlib.blake2b(repr(numbers).encode("ascii"), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))


def stochastic_round(values: Tensor, noise: torch.Generator) -> Tensor:
    """Return float32 `values` as bfloat16, each rounded up or down so that its expectation is the value.

    What bfloat16 can hold exactly stays; infinities and NaN stay what they are.
    """
    bits = values.view(torch.int32)
    added = torch.randint(
        0, 1 << _CUT_BITS, bits.shape, dtype=torch.int32, device=values.device, generator=noise
    )
    # The magnitude is the low 31 bits, so that adding to them rounds away from zero, whatever the sign.
    rounded = added.add_(bits).bitwise_and_(-(1 << _CUT_BITS)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)
