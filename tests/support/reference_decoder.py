"""A decoder in numpy and float64, written for reading: what the native engine's must compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.decoder import NativeDecoder
from medchat.inference.cpu_engine.decoder_shape import (
    FeedForward,
    NativeShape,
    NormKind,
    Positions,
    QueryLayout,
)
from medchat.inference.cpu_engine.decoder_weights import (
    DecoderWeights,
    LayerWeights,
    Linear,
    LowRank,
    Norm,
    Role,
)
from medchat.inference.cpu_engine.packed_matrix import PackedMatrix, group_count

Doubles = NDArray[np.float64]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "norm": NormKind.ROOT_MEAN_SQUARE,
        "positions": Positions.ROTARY,
        "query_layout": QueryLayout.THREE_MATRICES,
        "feed_forward": FeedForward.GATED_SILU,
        "key_heads": 2,
    },
    "bloom": {
        "norm": NormKind.LAYER_NORM,
        "positions": Positions.LINEAR_BIAS,
        "query_layout": QueryLayout.BY_HEAD,
        "feed_forward": FeedForward.PLAIN_GELU,
    },
    "chatglm": {
        "norm": NormKind.LAYER_NORM,
        "positions": Positions.ROTARY,
        "rotary_parts": 2,
        "query_layout": QueryLayout.BY_HEAD,
        "feed_forward": FeedForward.PLAIN_GELU,
        "residual_from_norm": True,
        "residual_scale": 7.5,
    },
}


def shape_of(family: str, **changes: Any) -> NativeShape:
    sizes = {"layers": 2, "width": 40, "heads": 4, "key_heads": 4, "head_width": 12, "inner_width": 72}
    rest = {"precise": True, "norm_epsilon": 1e-5}
    return NativeShape(**{**sizes, **rest, **FAMILIES[family], **changes})


def drawn(
    shape: NativeShape, bits: int = 8, head_rows: int = 50, seed: int = 0, rank: int = 0
) -> NativeDecoder:
    """Return a decoder with random weights; 0 rows for none in the head, 0 as `rank` for no adapters.

    With adapters every second matrix of a layer and the head have one, each of another rank.
    """
    random = np.random.default_rng(seed)

    def vector(length: int, around: float = 0.0) -> NDArray[np.float32]:
        return (around + 0.3 * random.standard_normal(length)).astype(np.float32)

    def matrix(rows: int, columns: int) -> PackedMatrix:
        low, high = (-127, 128) if bits == 8 else (-7, 8)
        scales = random.uniform(0.5, 1.5, (rows, group_count(columns))) / high / np.sqrt(columns)
        integers = random.integers(low, high, (rows, columns))
        return PackedMatrix.pack(integers.astype(np.int8), 2 * scales.astype(np.float16), bits)

    def adapter(rows: int, columns: int, number: int) -> LowRank | None:
        if not rank or number % 2:
            return None
        down, up = (random.standard_normal((rank + number, width)) for width in (columns, rows))
        return LowRank((down / np.sqrt(columns)).astype(np.float32), up.astype(np.float32))

    def norm() -> Norm:
        has_bias = shape.norm is NormKind.LAYER_NORM
        return Norm(vector(shape.width, 1.0), vector(shape.width) if has_bias else None)

    queries, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    sizes = {Role.ATTENTION_OUTPUT: (shape.width, queries), Role.UP: (shape.inner_width, shape.width)}
    sizes |= {Role.DOWN: (shape.width, shape.inner_width)}
    if shape.query_layout is QueryLayout.BY_HEAD:
        sizes |= {Role.QUERY: (3 * queries, shape.width)}
    else:
        sizes |= {
            Role.QUERY: (queries, shape.width),
            Role.KEY: (keys, shape.width),
            Role.VALUE: (keys, shape.width),
        }
    if shape.feed_forward is FeedForward.GATED_SILU:
        sizes |= {Role.GATE: (shape.inner_width, shape.width)}
    has_bias = shape.query_layout is QueryLayout.BY_HEAD
    layers = tuple(
        LayerWeights(
            norm(),
            norm(),
            {
                role: Linear(matrix(*size), vector(size[0]) if has_bias else None, adapter(*size, role))
                for role, size in sizes.items()
            },
        )
        for _ in range(shape.layers)
    )
    slopes = (
        None if shape.positions is Positions.ROTARY else (2.0 ** -np.arange(shape.heads)).astype(np.float32)
    )
    head = matrix(head_rows, shape.width) if head_rows else None
    of_head = adapter(head_rows, shape.width, 0) if head_rows else None
    return NativeDecoder(shape, DecoderWeights(layers, norm(), head, slopes, of_head))


@dataclass
class ReferenceDecoder:
    """Reads a whole sequence: `states` [T, width], `visible` [T], `turns` cosines and sines [T, head_width / 2]."""

    native: NativeDecoder

    def read(self, states: Any, visible: Any, turns: Any = None) -> Doubles:
        shape, weights = self.native.shape, self.native.weights
        states = states.astype(np.float64)
        for layer in weights.layers:
            normalised = self._norm(states, layer.before_attention)
            attended = self._linear(
                self._attend(layer, normalised, visible, turns), layer, Role.ATTENTION_OUTPUT
            )
            states = attended + shape.residual_scale * (normalised if shape.residual_from_norm else states)
            normalised = self._norm(states, layer.before_feed_forward)
            widened = self._linear(normalised, layer, Role.UP)
            if shape.feed_forward is FeedForward.GATED_SILU:
                gate = self._linear(normalised, layer, Role.GATE)
                widened = gate / (1 + np.exp(-gate)) * widened
            else:
                cubed = widened + 0.044715 * widened**3
                widened = widened / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * cubed))
            transformed = self._linear(widened, layer, Role.DOWN)
            states = transformed + shape.residual_scale * (normalised if shape.residual_from_norm else states)
        states = self._norm(states, weights.final_norm)
        if weights.head is None:
            return states
        return self._product(states, Linear(weights.head, low_rank=weights.head_low_rank))

    def _linear(self, states: Doubles, layer: LayerWeights, role: Role) -> Doubles:
        return self._product(states, layer.linears[role])

    def _product(self, states: Doubles, linear: Linear) -> Doubles:
        product = states @ linear.matrix.dense().astype(np.float64).T
        if linear.low_rank is not None:
            product += states @ linear.low_rank.down.astype(np.float64).T @ linear.low_rank.up
        return product if linear.bias is None else product + linear.bias

    def _norm(self, states: Doubles, norm: Norm) -> Doubles:
        if self.native.shape.norm is NormKind.LAYER_NORM:
            states = states - states.mean(-1, keepdims=True)
        size = np.sqrt((states**2).mean(-1, keepdims=True) + self.native.shape.norm_epsilon)
        return states / size * norm.weight + (0.0 if norm.bias is None else norm.bias)

    def _attend(self, layer: LayerWeights, states: Doubles, visible: Any, turns: Any) -> Doubles:
        shape, count = self.native.shape, len(states)
        if shape.query_layout is QueryLayout.BY_HEAD:
            fused = self._linear(states, layer, Role.QUERY).reshape(count, shape.heads, 3, shape.head_width)
            queries, keys, values = fused[:, :, 0], fused[:, :, 1], fused[:, :, 2]
        else:
            queries, keys, values = (
                self._linear(states, layer, role).reshape(count, -1, shape.head_width)
                for role in (Role.QUERY, Role.KEY, Role.VALUE)
            )
        if turns is not None:
            queries, keys = self._turned(queries, turns), self._turned(keys, turns)
        attended = np.empty((count, shape.heads, shape.head_width))
        for token in range(count):
            for head in range(shape.heads):
                of = head // (shape.heads // shape.key_heads)
                scores = keys[: visible[token], of] @ queries[token, head] / np.sqrt(shape.head_width)
                if self.native.weights.slopes is not None:
                    scores = scores + self.native.weights.slopes[head] * np.arange(visible[token])
                shares = np.exp(scores - scores.max())
                attended[token, head] = shares / shares.sum() @ values[: visible[token], of]
        return attended.reshape(count, -1)

    def _turned(self, heads: Doubles, turns: Any) -> Doubles:
        cosines, sines = (table.reshape(len(table), 1, self.native.shape.rotary_parts, -1) for table in turns)
        parts = heads.reshape(*heads.shape[:2], self.native.shape.rotary_parts, 2, -1)
        first, second = parts[..., 0, :], parts[..., 1, :]
        turned = np.stack((first * cosines - second * sines, second * cosines + first * sines), axis=-2)
        return turned.reshape(heads.shape)
