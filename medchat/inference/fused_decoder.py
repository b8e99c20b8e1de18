"""A model of torch whose linears the native engine has, seen as one decoder of that engine.

A family says where the parts of its model are (`DecoderParts`), or None if something is among them that its
own classes do not have, such as a hook: torch then runs the model layer by layer. LoRA beside a linear is a part
of it. Packed weights are shared with the model, not copied; the small matrices of adapters are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medchat.inference.cpu_engine.decoder import NativeDecoder, Tokens
from medchat.inference.cpu_engine.decoder_shape import NativeShape
from medchat.inference.cpu_engine.decoder_weights import (
    DecoderWeights,
    Floats,
    LayerWeights,
    Linear,
    LowRank,
    Norm,
    Role,
)
from medchat.inference.engine import NativeLinear
from medchat.inference.native_sequence import Places

if TYPE_CHECKING:
    from medchat.inference.acting_lora import ActingLora


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
    turns: Callable[[Places], tuple[Floats, Floats]] | None = None
    slopes: Tensor | None = None

    def contents(self) -> list[object]:
        """Return all of them but what embeds, and the adapters that act now.

        As long as these are the same, so is the decoder.
        """
        norms = [
            norm for layer in self.layers for norm in (layer.before_attention, layer.before_feed_forward)
        ]
        linears = [linear for layer in self.layers for linear in layer.linears.values()]
        return [
            *norms,
            self.final_norm,
            *(part for linear in (*linears, self.head) for part in _contents(linear)),
        ]


#: What a family says of its model: None if something in it is not as its own classes have it.
Parts = Callable[[Any], DecoderParts | None]


@dataclass(frozen=True, slots=True, eq=False)
class EngineLinear:
    """A linear of the engine's, and the LoRA that acts beside it."""

    base: NativeLinear
    loras: tuple[ActingLora, ...] = ()

    def low_rank(self) -> LowRank | None:
        """Return what is added to the product, as the library takes it."""
        if not self.loras:
            return None
        from medchat.inference.acting_lora import side_by_side

        return LowRank(*side_by_side(self.loras))


def engine_linear(module: nn.Module) -> EngineLinear | None:
    """Return what the engine has of a linear; None if it is not the engine's own, or more than LoRA is beside it."""
    if type(module) is NativeLinear:
        return EngineLinear(module)
    if not hasattr(module, "lora_A"):
        return None
    from medchat.inference.acting_lora import acting_lora  # brings peft: slow to import

    base, loras = acting_lora(module) or (None, ())
    return EngineLinear(base, loras) if isinstance(base, NativeLinear) else None


def leave_unchanged(module: nn.Module, inputs: Any, output: Any) -> None:
    """Do nothing, as a hook: for layers that must be seen to have one."""


def has_no_hooks(model: nn.Module) -> bool:
    """Say whether nothing hangs on the modules of `model` that would run beside them (hooks), and none is training."""
    return not any(
        module.training
        or module._forward_pre_hooks
        or any(hook is not leave_unchanged for hook in module._forward_hooks.values())
        for module in model.modules()
    )


class FusedDecoder:
    """The parts of a model put together in the native engine."""

    def __init__(self, parts: DecoderParts) -> None:
        """Raises ValueError if a part does not fit the shape, or a linear of a layer is not the engine's."""
        self._contents = parts.contents()
        self.parts = parts
        layers = tuple(_layer_of(layer) for layer in parts.layers)
        own = engine_linear(parts.head)
        head = Linear(own.base.packed, low_rank=own.low_rank()) if own and own.base.bias is None else None
        slopes = None if parts.slopes is None else _vector(parts.slopes)
        weights = DecoderWeights(
            layers,
            _norm_of(parts.final_norm),
            head and head.matrix,
            slopes,
            head_low_rank=head and head.low_rank,
        )
        self.native = NativeDecoder(parts.shape, weights)

    def consists_of(self, parts: DecoderParts) -> bool:
        """Say whether it was put together from the modules of `parts` and the adapters that act on them."""
        found = parts.contents()
        return len(found) == len(self._contents) and all(map(_same, found, self._contents))

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Floats:
        """Return the states [T, width] that the first layer reads."""
        return self.parts.embed(torch.tensor(list(ids))).float().numpy()

    def turns(self, positions: Places) -> tuple[Floats | None, Floats | None]:
        """Return cosines and sines [T, head_width / 2] of `positions`, [T] or [n, T]; None if nothing turns."""
        return (None, None) if self.parts.turns is None else self.parts.turns(positions)

    @torch.inference_mode()
    def read(self, tokens: Sequence[Tokens], cancelled: Callable[[], bool] | None = None) -> Floats:
        """Read `tokens`, each of another sequence; return the logits [W, V] of those wanted.

        Raises as `NativeDecoder.read`.
        """
        results = self.native.read(tokens, threads=torch.get_num_threads(), cancelled=cancelled)
        return self._logits(results)

    def _logits(self, results: Floats) -> Floats:
        if self.native.weights.head is not None:
            return results
        head = self.parts.head
        dtype = next(part.dtype for part in head.parameters() if part.is_floating_point())
        return head(torch.from_numpy(results).to(dtype)).float().numpy()  # type: ignore[no-any-return]


def all_native(linears: Mapping[Role, nn.Module]) -> bool:
    """Say whether each of the linears is the engine's own, with no other adapter than LoRA over it."""
    return all(engine_linear(linear) for linear in linears.values())


def _contents(module: nn.Module) -> list[object]:
    found = engine_linear(module)
    if found is None:
        return [module]
    return [found.base, *(part for lora in found.loras for part in (lora.down, lora.up, lora.scale))]


def _same(one: object, other: object) -> bool:
    return one is other


def _layer_of(parts: LayerParts) -> LayerWeights:
    linears = {}
    for role, module in parts.linears.items():
        linear = engine_linear(module)
        if linear is None:
            raise ValueError(f"{role.name}: {type(module).__name__}")
        bias = linear.base.bias
        linears[role] = Linear(linear.base.packed, None if bias is None else _vector(bias), linear.low_rank())
    return LayerWeights(_norm_of(parts.before_attention), _norm_of(parts.before_feed_forward), linears)


def _norm_of(norm: nn.Module) -> Norm:
    bias = getattr(norm, "bias", None)
    return Norm(_vector(norm.get_parameter("weight")), None if bias is None else _vector(bias))


def _vector(values: Tensor) -> Floats:
    return values.detach().float().contiguous().numpy()
