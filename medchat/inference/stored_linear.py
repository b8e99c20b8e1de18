"""Linears as a file of quantised weights holds them: packed for the native engine, for either engine to take over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.packed_weights import is_packed
from medchat.errors import UsageError
from medchat.inference.cpu_engine.packed_matrix import RANGES, packed_bytes
from medchat.inference.cpu_engine.tile_layout import unpack_tiles
from medchat.inference.group_scales import GroupedLinear
from medchat.inference.quantization import pack_rows
from medchat.language import say


class StoredLinear(nn.Linear):
    """A linear whose `weight` is one row of bytes (docs/specs/engine.md, "Packed matrices"). It computes nothing."""

    def __init__(self, inputs: int, outputs: int, bits: int, bias: bool = True) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = inputs, outputs, bits
        empty = torch.empty(packed_bytes(outputs, inputs, bits), dtype=torch.uint8)
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    @classmethod
    def like(cls, layer: nn.Linear, bits: int) -> StoredLinear:
        """Return a layer of the same shape, still without values."""
        with torch.device("meta"):
            return cls(layer.in_features, layer.out_features, bits, layer.bias is not None)

    def packed_bytes(self) -> NDArray[np.uint8]:
        """Return the packed bytes, without a copy where they lie at an even address, as scales must."""
        weight = self.weight.detach()
        return (weight if weight.data_ptr() % 2 == 0 else weight.clone()).numpy()

    def unpacked(self) -> GroupedLinear:
        """Return the same layer for torch, the weights exactly."""
        with torch.device("meta"):
            layer = GroupedLinear(self.in_features, self.out_features, self.bits, self.bias is not None)
        integers, scales = unpack_tiles(self.packed_bytes(), self.out_features, self.in_features, self.bits)
        layer.weight = nn.Parameter(pack_rows(torch.from_numpy(integers), self.bits), requires_grad=False)
        layer.weight_scale = nn.Parameter(torch.from_numpy(scales), requires_grad=False)
        layer.bias = self.bias
        return layer


def expect_stored(
    model: nn.Module,
    headers: Mapping[str, TensorHeader],
    rename: Callable[[str], str] = str,
    replaced: Collection[str] = (),
) -> frozenset[str]:
    """Put a `StoredLinear` in place of each linear of `model` whose weight is stored packed.

    For a model on the meta device. `rename` makes the model's name of a stored tensor's; those among `replaced` are
    not read. Returns the names of their weights. What is of another size than a packed matrix of the linear's shape
    stays: it does not fit the model.
    """
    found = set()
    for plain, header in headers.items():
        path, _, leaf = rename(plain).rpartition(".")
        if leaf != "weight" or not is_packed(header) or f"{path}.weight" in replaced:
            continue
        parent, _, name = path.rpartition(".")
        try:
            holder = model.get_submodule(parent)
            layer = getattr(holder, name)
        except AttributeError:
            continue
        if type(layer) not in (nn.Linear, GroupedLinear):
            continue
        for bits in RANGES:
            if header.shape[0] == packed_bytes(layer.out_features, layer.in_features, bits):
                setattr(holder, name, StoredLinear.like(layer, bits))
                found.add(f"{path}.weight")
    return frozenset(found)


def refuse_other_width(model: nn.Module, wanted: str) -> None:
    """Raise UsageError unless `wanted`, one of QUANTIZE, is "none" or what the stored linears of `model` have."""
    bits = min(layer.bits for layer in model.modules() if isinstance(layer, StoredLinear))
    refuse_second_quantization(bits, wanted)


def refuse_second_quantization(stored: int, wanted: str) -> None:
    """Raise UsageError where weights of `stored` bits, 0 for dense ones, are to become something else."""
    if stored and wanted not in ("none", f"int{stored}"):
        raise UsageError(
            say(
                f"这份权重已经是 int{stored}，不能再量化为 {wanted}",
                f"these weights are int{stored} already and cannot become {wanted}",
            ),
            say("请去掉 --quantize，或换用未量化的权重", "leave out --quantize, or use unquantised weights"),
        )
