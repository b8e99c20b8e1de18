"""Laying adapters of any kind over a causal model, in their order: a later one was trained over the earlier.

require_fit(model, adapters)                  # while the model is still without weights
lay_all(model, adapters, device, dtype)       # ready to run: LoRA is tried out
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from medchat.torchside import adapters as lora
from medchat.torchside import bottleneck, prefix_tuning
from medchat.torchside.adapter_files import LoraAdapter
from medchat.torchside.adapter_kinds import Adapter, BottleneckAdapter, KeyValueAdapter


def require_fit(model: PreTrainedModel, adapters: Sequence[Adapter]) -> None:
    """Hold the adapters against `model`, which may be on the meta device. Raises CheckpointError."""
    lora.require_fit(model, [adapter for adapter in adapters if isinstance(adapter, LoraAdapter)])
    for adapter in adapters:
        if isinstance(adapter, BottleneckAdapter):
            bottleneck.require_fit(model, adapter)
        elif isinstance(adapter, KeyValueAdapter):
            prefix_tuning.require_fit(model, adapter)


def lay_all(
    model: PreTrainedModel,
    adapters: Sequence[Adapter],
    device: torch.device,
    dtype: torch.dtype,
    trial: Sequence[int] = (),
) -> None:
    """Lay the adapters over `model`, all of them active; arguments as in `adapters.attach_all`.

    Bottlenecks come behind the linears and all LoRA over them, whatever the order of the folders; a prefix
    stands before everything. Raises CheckpointError: another model's, without effect, two of a kind that
    can be used once.
    """
    loras = [adapter for adapter in adapters if isinstance(adapter, LoraAdapter)]
    if loras:
        lora.attach_all(model, loras, device, dtype, trial)
    for adapter in adapters:
        if isinstance(adapter, BottleneckAdapter):
            bottleneck.attach(model, adapter, device)
        elif isinstance(adapter, KeyValueAdapter):
            prefix_tuning.attach(model, adapter, device)
