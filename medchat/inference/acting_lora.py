"""Which LoRA adapters act on a linear at this moment, for an engine that adds them itself.

    found = acting_lora(layer)      # None where peft's own layer has to run
    base, loras = found

Adapters may be switched at any time: what is found holds the matrices themselves, so that two findings can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class ActingLora:
    """One adapter: it adds `scale` times up(down(inputs)); `down` is [rank, inputs], `up` [outputs, rank]."""

    down: Tensor
    up: Tensor
    scale: float


def acting_lora(layer: Any) -> tuple[nn.Module, tuple[ActingLora, ...]] | None:
    """Return the linear below a layer of peft, and what is added to its outputs now, in that order.

    None where the layer is of another kind, or something acts that is no plain LoRA (a variant, a bias, a merged one).
    """
    if type(layer) is not LoraLinear or layer.merged:
        return None
    names = [] if layer.disable_adapters else [name for name in layer.active_adapters if name in layer.lora_A]
    if any(name in layer.lora_variant or layer.lora_B[name].bias is not None for name in names):
        return None
    found = (
        ActingLora(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
        for name in names
    )
    return layer.get_base_layer(), tuple(found)


def side_by_side(loras: tuple[ActingLora, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the matrices of all as those of one: `down` [ranks, inputs], and `up` [ranks, outputs], scaled."""
    down = torch.cat([lora.down.detach().float() for lora in loras])
    up = torch.cat([lora.up.detach().float().T * lora.scale for lora in loras])
    return down.numpy(), up.contiguous().numpy()
