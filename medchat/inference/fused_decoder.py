"""A model of torch whose linears the native engine has, seen as one decoder of that engine.

A family says where the parts of its model are (`DecoderParts`), or None if something is among them that its
own classes do not have, such as an adapter or a hook: torch then runs the model layer by layer. Packed
weights are shared with the model, not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medchat.inference.cpu_engine.decoder import NativeDecoder, Tokens
from medchat.inference.cpu_engine.decoder_shape import NativeShape
from medchat.inference.cpu_engine.decoder_weights import (
    DecoderWeights,
    Floats,
    LayerWeights,
    Linear,
    Norm,
    Role,
)
from medchat.inference.engine import NativeLinear


@dataclass(frozen=True, slots=True, eq=False)
class LayerParts:
    """The modules of one layer: its two norms, and its linears by their role."""

    before_attention: nn.Module
    before_feed_forward: nn.Module
    linears: Mapping[Role, nn.Module]


@dataclass(frozen=True, slots=True, eq=False)
class DecoderParts:
    """Where the parts of a model are. `embed` maps ids [T] to the states that the first layer reads, [T, width].

    `head` maps normalised states [T, width] to logits [T, V]. Where queries and keys turn, `turns` maps positions
    [T], or several of them [n, T], to cosines and sines [T, head_width / 2]; where scores fall with the distance,
    `slopes` [heads] says by how much.
    """

    shape: NativeShape
    layers: Sequence[LayerParts]
    final_norm: nn.Module
    embed: Callable[[Tensor], Tensor]
    head: nn.Module
    turns: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    slopes: Tensor | None = None

    def modules(self) -> list[nn.Module]:
        """Return all of them but what embeds: as long as these are the same, so is the decoder."""
        own = [
            module
            for layer in self.layers
            for module in (layer.before_attention, layer.before_feed_forward, *layer.linears.values())
        ]
        return [*own, self.final_norm, self.head]


#: What a family says of its model: None if something in it is not as its own classes have it.
Parts = Callable[[Any], DecoderParts | None]


def has_no_hooks(model: nn.Module) -> bool:
    """Say whether nothing hangs on the modules of `model` that would run beside them (hooks), and none is training."""
    return not any(
        module._forward_hooks or module._forward_pre_hooks or module.training for module in model.modules()
    )


class FusedDecoder:
    """The parts of a model put together in the native engine."""

    def __init__(self, parts: DecoderParts) -> None:
        """Raises ValueError if a part does not fit the shape, or a linear of a layer is not the engine's."""
        self._modules = parts.modules()
        self.parts = parts
        layers = tuple(_layer_of(layer) for layer in parts.layers)
        head = parts.head.packed if isinstance(parts.head, NativeLinear) and parts.head.bias is None else None
        slopes = None if parts.slopes is None else _vector(parts.slopes)
        weights = DecoderWeights(layers, _norm_of(parts.final_norm), head, slopes)
        self.native = NativeDecoder(parts.shape, weights)

    def consists_of(self, parts: DecoderParts) -> bool:
        """Say whether it was put together from the modules of `parts`."""
        found = parts.modules()
        return len(found) == len(self._modules) and all(map(_same, found, self._modules))

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Floats:
        """Return the states [T, width] that the first layer reads."""
        return self.parts.embed(torch.tensor(list(ids))).float().numpy()

    @torch.inference_mode()
    def turns(self, positions: Tensor) -> tuple[Floats | None, Floats | None]:
        """Return cosines and sines [T, head_width / 2] of `positions`, [T] or [n, T]; None if nothing turns."""
        if self.parts.turns is None:
            return None, None
        cosines, sines = self.parts.turns(positions)
        return cosines.float().numpy(), sines.float().numpy()

    @torch.inference_mode()
    def read(self, tokens: Sequence[Tokens], cancelled: Callable[[], bool] | None = None) -> Tensor:
        """Read `tokens`, each of another sequence; return the logits [W, V] of those wanted, in float32.

        Raises as `NativeDecoder.read`.
        """
        results = self.native.read(tokens, threads=torch.get_num_threads(), cancelled=cancelled)
        return self._logits(results)

    def _logits(self, results: Floats) -> Tensor:
        found = torch.from_numpy(results)
        if self.native.weights.head is not None:
            return found
        head = self.parts.head
        return head(found.to(next(head.parameters()).dtype)).float()  # type: ignore[no-any-return]


def all_native(linears: Mapping[Role, nn.Module]) -> bool:
    """Say whether each of the linears is the engine's own, without an adapter over it."""
    return all(type(linear) is NativeLinear for linear in linears.values())


def _same(one: object, other: object) -> bool:
    return one is other


def _layer_of(parts: LayerParts) -> LayerWeights:
    linears = {}
    for role, linear in parts.linears.items():
        if not isinstance(linear, NativeLinear):
            raise ValueError(f"{role.name}: {type(linear).__name__}")
        linears[role] = Linear(linear.packed, None if linear.bias is None else _vector(linear.bias))
    return LayerWeights(_norm_of(parts.before_attention), _norm_of(parts.before_feed_forward), linears)


def _norm_of(norm: nn.Module) -> Norm:
    bias = getattr(norm, "bias", None)
    return Norm(_vector(norm.get_parameter("weight")), None if bias is None else _vector(bias))


def _vector(values: Tensor) -> Floats:
    return values.detach().float().contiguous().numpy()
