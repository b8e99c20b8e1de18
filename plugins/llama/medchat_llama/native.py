"""A LLaMA in the native engine: its shape, and how its queries and keys turn. No torch here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.decoder_shape import (
    FeedForward,
    NativeShape,
    NormKind,
    Positions,
    QueryLayout,
)
from medchat.inference.cpu_engine.decoder_weights import Floats
from medchat_llama.folder import LlamaShape


def llama_native_shape(shape: LlamaShape, *, precise: bool) -> NativeShape:
    """Return the shape of the model that `shape` describes; `precise`: computed in float32."""
    return NativeShape(
        layers=shape.layers,
        width=shape.hidden_size,
        heads=shape.heads,
        key_heads=shape.key_value_heads,
        head_width=shape.hidden_size // shape.heads,
        inner_width=shape.inner_size,
        norm=NormKind.ROOT_MEAN_SQUARE,
        positions=Positions.ROTARY,
        query_layout=QueryLayout.THREE_MATRICES,
        feed_forward=FeedForward.GATED_SILU,
        precise=precise,
        norm_epsilon=shape.norm_epsilon,
    )


def llama_turns(head_width: int, base: float, positions: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return cosines and sines [T, head_width / 2] of positions [T]; `base` is that of the frequencies."""
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    angles = positions.astype(np.float32)[:, None] * (1 / np.float32(base) ** exponents)
    return np.cos(angles), np.sin(angles)
