"""The weights of a decoder as the library takes them, and whether they fit its shape. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.decoder_shape import FeedForward, NativeShape, Positions, QueryLayout
from medchat.inference.cpu_engine.packed_matrix import PackedMatrix

Floats = NDArray[np.float32]
#: More than the ranks of adapters add up to.
_RANK = 2**16


class Role(IntEnum):
    """The matrices of a layer; QUERY is also the one that holds queries, keys and values by head."""

    QUERY = 0
    KEY = 1
    VALUE = 2
    ATTENTION_OUTPUT = 3
    GATE = 4
    UP = 5
    DOWN = 6


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What adapters add to a product: `up` transposed times `down` times the inputs, in float32.

    `down` is [rank, columns of the matrix], `up` [rank, rows of the matrix].
    """

    down: Floats
    up: Floats

    def check(self, matrix: PackedMatrix) -> None:
        """Raise ValueError if it is of another shape or type than `matrix` asks for, or not finite."""
        rank = self.down.shape[0] if self.down.ndim == 2 else 0
        if not 0 < rank <= _RANK:
            raise ValueError(f"a rank of {rank}")
        for part, width in ((self.down, matrix.columns), (self.up, matrix.rows)):
            if part.shape != (rank, width) or part.dtype != np.float32 or not part.flags.c_contiguous:
                raise ValueError(f"{part.dtype} {part.shape}, not {(rank, width)} float32 in a row")
            if not np.isfinite(part).all():
                raise ValueError("a matrix of an adapter that is not finite")


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A matrix, its bias [rows], if it has one, and what adapters add to its product."""

    matrix: PackedMatrix
    bias: Floats | None = None
    low_rank: LowRank | None = None

    def check(self) -> None:
        """Raise ValueError if bias or adapters do not fit the matrix."""
        _check_vector(self.bias, self.matrix.rows)
        if self.low_rank is not None:
            self.low_rank.check(self.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Weight and bias of a norm, [width] each."""

    weight: Floats
    bias: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LayerWeights:
    """The weights of one layer; which roles it has follows from the shape."""

    before_attention: Norm
    before_feed_forward: Norm
    linears: Mapping[Role, Linear]


@dataclass(frozen=True, slots=True, eq=False)
class DecoderWeights:
    """All weights. A `head` has no bias; `slopes` [heads] belong to positions of the kind LINEAR_BIAS."""

    layers: tuple[LayerWeights, ...]
    final_norm: Norm
    head: PackedMatrix | None = None
    slopes: Floats | None = None
    #: What adapters add to the head's product.
    head_low_rank: LowRank | None = None

    def check(self, shape: NativeShape) -> None:
        """Raise ValueError if a part has another shape or type than `shape` asks for."""
        if len(self.layers) != shape.layers:
            raise ValueError(f"{len(self.layers)} layers for {shape.layers}")
        wanted = _linear_sizes(shape)
        for layer in self.layers:
            linears = layer.linears.items()
            found = {role: (linear.matrix.rows, linear.matrix.columns) for role, linear in linears}
            if found != wanted:
                raise ValueError(f"matrices {found}, not {wanted}")
            for _, linear in linears:
                linear.check()
            _check_norm(layer.before_attention, shape)
            _check_norm(layer.before_feed_forward, shape)
        _check_norm(self.final_norm, shape)
        if self.head is not None and self.head.columns != shape.width:
            raise ValueError(f"a head of {self.head.columns} columns")
        if self.head_low_rank is not None:
            if self.head is None:
                raise ValueError("adapters without a head")
            self.head_low_rank.check(self.head)
        if (self.slopes is None) != (shape.positions is Positions.ROTARY):
            raise ValueError("slopes belong to a linear bias")
        _check_vector(self.slopes, shape.heads)


def _check_norm(norm: Norm, shape: NativeShape) -> None:
    _check_vector(norm.weight, shape.width)
    _check_vector(norm.bias, shape.width)


def _linear_sizes(shape: NativeShape) -> dict[Role, tuple[int, int]]:
    """Return rows and columns of a layer's matrices."""
    width, queries, keys = shape.width, shape.heads * shape.head_width, shape.key_heads * shape.head_width
    by_head = shape.query_layout is QueryLayout.BY_HEAD
    sizes = {Role.QUERY: (queries + 2 * keys if by_head else queries, width)}
    if not by_head:
        sizes |= {Role.KEY: (keys, width), Role.VALUE: (keys, width)}
    sizes |= {Role.ATTENTION_OUTPUT: (width, queries)}
    if shape.feed_forward is FeedForward.GATED_SILU:
        sizes |= {Role.GATE: (shape.inner_width, width)}
    return sizes | {Role.UP: (shape.inner_width, width), Role.DOWN: (width, shape.inner_width)}


def _check_vector(vector: Floats | None, length: int) -> None:
    if vector is None:
        return
    if vector.shape != (length,) or vector.dtype != np.float32 or not vector.flags.c_contiguous:
        raise ValueError(f"a vector of {vector.dtype} {vector.shape}, not {length} float32 in a row")
