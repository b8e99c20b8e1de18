"""Laying adapters of any kind over a causal model, in their order: a later one was trained over the earlier.

require_fit(model, adapters)                  # while the model is still without weights
attach_adapters(model, adapters, device, dtype)       # ready to run: LoRA is tried out
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from medchat.checkpoints.adapter_folder import Adapter, BottleneckAdapter, KeyValueAdapter
from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.inference.adapters import bottleneck, prefix_tuning
from medchat.inference.adapters import lora as lora


def check_fit(model: PreTrainedModel, adapters: Sequence[Adapter]) -> None:
    """Hold the adapters against `model`, which may be on the meta device. Raises CheckpointError."""
    lora.check_lora_fit(model, [adapter for adapter in adapters if isinstance(adapter, LoraAdapter)])
    for adapter in adapters:
        if isinstance(adapter, BottleneckAdapter):
            bottleneck.check_bottleneck_fit(model, adapter)
        elif isinstance(adapter, KeyValueAdapter):
            prefix_tuning.check_prefix_fit(model, adapter)


def attach_adapters(
    model: PreTrainedModel,
    adapters: Sequence[Adapter],
    device: torch.device,
    dtype: torch.dtype,
    trial: Sequence[int] = (),
) -> None:
    """Attach the adapters to `model`, all of them active; arguments as in `adapters.attach_all`.

    Bottlenecks come behind the linears and all LoRA over them, whatever the order of the folders; a prefix is
    before everything. Raises CheckpointError: another model's, without effect, two of a kind that can be used
    once.
    """
    loras = [adapter for adapter in adapters if isinstance(adapter, LoraAdapter)]
    if loras:
        lora.attach_loras(model, loras, device, dtype, trial)
    for adapter in adapters:
        if isinstance(adapter, BottleneckAdapter):
            bottleneck.attach_bottlenecks(model, adapter, device)
        elif isinstance(adapter, KeyValueAdapter):
            prefix_tuning.attach_prefix(model, adapter, device)
