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
class Linear:
    """A matrix and its bias [rows], if it has one."""

    matrix: PackedMatrix
    bias: Floats | None = None


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
                _check_vector(linear.bias, linear.matrix.rows)
            _check_norm(layer.before_attention, shape)
            _check_norm(layer.before_feed_forward, shape)
        _check_norm(self.final_norm, shape)
        if self.head is not None and self.head.columns != shape.width:
            raise ValueError(f"a head of {self.head.columns} columns")
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
