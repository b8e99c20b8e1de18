"""Houlsby's adapters: two small bottlenecks a layer, behind attention and behind the feed-forward part.

Each follows the linear whose output enters the residual: y + up(gelu(down(y))). `up` begins at zero, so an
untrained one changes nothing (Houlsby et al., arXiv 1902.00751). They hang on the linears as a child and a
hook, so every other name of the model stays what it was. peft has no such type; the folder looks like one of
its, with a `peft_type` of our own:

    adapter_config.json         {"peft_type": "MEDCHAT_HOULSBY", "size": 64, "modules": ["o_proj", ...]}
    adapter_model.safetensors   {module}.bottleneck.{down,up}.{weight,bias}, float32
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medchat.checkpoints.adapter_folder import BOTTLENECK, BottleneckAdapter, no_fit, remedy
from medchat.checkpoints.adapter_folder import BOTTLENECK_CHILD as CHILD
from medchat.errors import CheckpointError
from medchat.inference.adapters.linears import linear_sizes
from medchat.inference.load_weights import Placement, assign
from medchat.language import say

#: Spread of the first weights: near nothing, as its authors advise.
_SPREAD = 1e-2


class Bottleneck(nn.Module):
    """Adds up(gelu(down(y))) to y, [..., width]; computed in float32's own weights, returned in y's dtype."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)

    def begin(self) -> None:
        """Give the weights their first values: `up` zero, so that nothing changes yet."""
        nn.init.normal_(self.down.weight, std=_SPREAD)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, states: Tensor) -> Tensor:
        """Map [..., width] to [..., width]."""
        added: Tensor = self.up(functional.gelu(self.down(states.to(self.down.weight.dtype))))
        return states + added.to(states.dtype)


def check_bottleneck_fit(model: nn.Module, adapter: BottleneckAdapter) -> None:
    """Hold the adapter against `model`, which may be on the meta device. Raises CheckpointError."""
    modules = dict(model.named_modules())
    for name, width in adapter.widths().items():
        own = linear_sizes(modules.get(name))
        if own is None:
            raise no_fit(adapter.folder, say(f"模型里没有 {name}", f"the model has no {name}"))
        if own[0] != width:
            raise no_fit(adapter.folder, f"{name} {width}, {own[0]}")


def attach_bottlenecks(model: nn.Module, adapter: BottleneckAdapter, device: torch.device) -> None:
    """Put the bottlenecks into `model` with their stored values, in float32.

    Raises CheckpointError: it belongs to another model, changes nothing, or there are bottlenecks already.
    """
    if bottlenecks(model):
        raise CheckpointError(
            say("一次只能使用一个瓶颈适配器（Houlsby）", "only one bottleneck adapter (Houlsby) can be used"),
            say("请只保留一个这样的 --adapter", "keep one such --adapter"),
            where=str(adapter.folder),
        )
    with torch.device("meta"):
        for name, width in adapter.widths().items():
            _attach(model.get_submodule(name), Bottleneck(width, adapter.size))
    try:
        assign(model, adapter.checkpoint, adapter.headers, Placement(torch.float32, device))
    except CheckpointError as error:
        raise CheckpointError(error.what, remedy(), where=str(adapter.folder)) from None
    if not any(bool(one.up.weight.any()) or bool(one.up.bias.any()) for one in bottlenecks(model).values()):
        raise no_fit(
            adapter.folder, say("权重全为零，加载后不起作用", "all its weights are zero: it changes nothing")
        )
    for bottleneck in bottlenecks(model).values():
        bottleneck.requires_grad_(False)


def insert_bottlenecks(model: nn.Module, targets: Sequence[str], size: int) -> tuple[str, ...]:
    """Put untrained bottlenecks behind every linear of a layer called one of `targets`; return their names.

    They change nothing yet. They are on the linears' devices, in float32, and the only trainable part.
    """
    model.requires_grad_(False)
    chosen = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in targets and _width(module)
    }
    for module in chosen.values():
        device = next(module.parameters()).device
        bottleneck = Bottleneck(_width(module), size).to(device)
        bottleneck.begin()
        _attach(module, bottleneck)
    return tuple(chosen)


def bottlenecks(model: nn.Module) -> dict[str, Bottleneck]:
    """Return the bottlenecks of `model` by the names of the linears they follow."""
    return {
        name.removesuffix(f".{CHILD}"): module
        for name, module in model.named_modules()
        if isinstance(module, Bottleneck)
    }


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the bottlenecks' tensors by the names they are stored under.

    Per module: weights [size, width] and [width, size], biases [size] and [width], in the trained dtype.
    """
    for name, parameter in model.named_parameters():
        if f".{CHILD}." in name:
            yield name, parameter.detach()


def stated(size: int, targets: Sequence[str]) -> dict[str, Any]:
    """Return the content of the adapter's small file."""
    return {"peft_type": BOTTLENECK, "size": size, "activation": "gelu", "modules": list(targets)}


def _attach(module: nn.Module, bottleneck: Bottleneck) -> None:
    module.add_module(CHILD, bottleneck)
    module.register_forward_hook(_through)


def _through(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    bottleneck = module.get_submodule(CHILD)
    passed: Tensor = bottleneck(output)
    return passed


def _width(module: nn.Module) -> int:
    # A LoRA layer of peft, under which the linear lies, has the same attribute.
    sizes = linear_sizes(module)
    width = sizes[0] if sizes else getattr(module, "out_features", 0)
    return width if isinstance(width, int) else 0
