"""Adding LoRA adapters to the weights below them.

    merge(model, "adapter0")                # one of several, in place
    merge_all(model, torch.bfloat16)        # all, each sum rounded once

A weight that other modules have too, such as a head tied to its embedding, is changed for all of them by `merge`
and for none of the others by `merge_all`: `over_shared_weights` names the layers for which that matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D


def merge(model: nn.Module, name: str) -> bool:
    """Add the adapter to the weights below it and take its layers away; no cost is left at run time.

    Returns False, having changed nothing, where a weight below is quantised: it then stays attached.
    """
    places = [place for place in _places(model) if name in place[2].lora_A]
    if not _are_plain(layer for _, _, layer in places):
        return False
    for parent, child_name, layer in places:
        layer.merge(adapter_names=[name])
        # Else the layer would leave the others out, taking all for merged.
        layer.merged_adapters.clear()
        layer.delete_adapter(name)
        if not layer.lora_A:
            setattr(parent, child_name, layer.get_base_layer())
    getattr(model, "peft_config", {}).pop(name, None)
    return True


def merge_all(model: nn.Module, dtype: torch.dtype) -> bool:
    """Add all adapters to the weights below them, each sum made in float32 and rounded once, to `dtype`.

    Returns False, having changed nothing, where a weight below is quantised. Weights without an adapter keep
    their dtype.
    """
    places = _places(model)
    if not _are_plain(layer for _, _, layer in places):
        return False
    for parent, name, layer in places:
        below = layer.get_base_layer()
        total = below.weight.detach().float()
        for adapter in layer.lora_A:
            total = total + layer.get_delta_weight(adapter)
        # A new parameter: one that is tied to another keeps its own values there.
        below.weight = nn.Parameter(total.to(dtype), requires_grad=False)
        setattr(parent, name, below)
    getattr(model, "peft_config", {}).clear()
    return True


def over_shared_weights(model: nn.Module) -> list[str]:
    """Return the names of the layers with LoRA beside a weight that another module has too."""
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and uses[id(module.get_base_layer().weight)] > 1
    ]


def _places(model: nn.Module) -> list[tuple[nn.Module, str, LoraLayer]]:
    """Return each layer with LoRA, with its parent and its name there."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer)
    ]


def _are_plain(layers: Iterable[LoraLayer]) -> bool:
    return all(type(layer.get_base_layer()) in (nn.Linear, Conv1D) for layer in layers)
