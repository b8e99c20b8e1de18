"""What distinguishes the decoders that the library computes (docs/specs/engine.md, "Whole decoders")."""

from __future__ import annotations

import ctypes
from dataclasses import astuple, dataclass
from enum import IntEnum

#: The widest head that the library has room for, and bounds beyond any published decoder, whose products fit its sizes.
_HEAD_WIDTH, _WIDTH, _LAYERS = 256, 2**19, 2**10


class NormKind(IntEnum):
    """How a token's states are normalised; numbers as in native/decoder_shape.h, here and below."""

    ROOT_MEAN_SQUARE = 0
    LAYER_NORM = 1


class Positions(IntEnum):
    """How a token's place enters its attention: queries and keys turn, or scores fall with the distance (ALiBi)."""

    ROTARY = 0
    LINEAR_BIAS = 1


class QueryLayout(IntEnum):
    """Three matrices, or one whose rows are [q k v] of one head after the other."""

    THREE_MATRICES = 0
    BY_HEAD = 1


class FeedForward(IntEnum):
    """down(silu(gate) * up), or down(gelu(up)) with the tanh form of GELU."""

    GATED_SILU = 0
    PLAIN_GELU = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeShape:
    """Sizes and kinds of a decoder; fields in the order of native/decoder_shape.h.

    `key_heads` heads of keys serve as many neighbouring heads of queries each. A head's components turn in
    `rotary_parts` equal parts. A residual is `residual_scale` times the input of the norm before the branch, or its
    output. `precise` decoders have activations of 24 bits and a cache in float32, others 16 bits and float16. Raises
    ValueError for sizes that no decoder has or that do not fit.
    """

    layers: int
    width: int
    heads: int
    key_heads: int
    head_width: int
    inner_width: int
    norm: NormKind
    positions: Positions
    rotary_parts: int = 1
    query_layout: QueryLayout
    feed_forward: FeedForward
    residual_from_norm: bool = False
    precise: bool
    norm_epsilon: float
    residual_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = (self.width, self.heads, self.key_heads, self.head_width, self.inner_width)
        turns = self.positions is Positions.ROTARY
        fits = (
            0 < self.layers <= _LAYERS
            and all(0 < size <= _WIDTH for size in sizes)
            and self.head_width <= _HEAD_WIDTH
            and self.heads * self.head_width <= _WIDTH
            and self.heads % self.key_heads == 0
            and (self.query_layout is QueryLayout.THREE_MATRICES or self.heads == self.key_heads)
            and (not turns or (self.rotary_parts > 0 and self.head_width % (2 * self.rotary_parts) == 0))
            and 0 < self.norm_epsilon < 1
            and 0 < self.residual_scale < _WIDTH
        )
        if not fits:
            raise ValueError(f"no decoder: {self}")

    def as_structure(self) -> ctypes.Structure:
        """Return it as the library takes it."""
        return _Structure(*astuple(self))

    def turn_width(self) -> int:
        """Return how many cosines, and how many sines, a token has: 0 if nothing turns."""
        return self.head_width // 2 if self.positions is Positions.ROTARY else 0


class _Structure(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in NativeShape.__annotations__
            if name not in ("norm_epsilon", "residual_scale")
        ),
        ("norm_epsilon", ctypes.c_float),
        ("residual_scale", ctypes.c_float),
    ]
