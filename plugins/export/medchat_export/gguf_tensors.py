"""The tensors of LLaMA and Bloom in llama.cpp's names and order of rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_LAYER = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)")
#: llama.cpp's names by transformers', in a layer and outside one.
_LLAMA_LAYER: Mapping[str, str] = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LLAMA: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_BLOOM_LAYER: Mapping[str, str] = {
    "input_layernorm": "attn_norm",
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
_BLOOM: Mapping[str, str] = {
    "transformer.word_embeddings": "token_embd",
    "transformer.word_embeddings_layernorm": "token_embd_norm",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Heads of attention, and those that keys and values have."""

    heads: int
    key_value_heads: int


def gguf_name(architecture: str, name: str) -> str:
    """Return llama.cpp's name of a tensor of transformers. Raises KeyError for one that is not known."""
    module, _, leaf = name.rpartition(".")
    layers, others = (_LLAMA_LAYER, _LLAMA) if architecture == "llama" else (_BLOOM_LAYER, _BLOOM)
    layer = _LAYER.fullmatch(module)
    if layer is None:
        return f"{others[module]}.{leaf}"
    return f"blk.{layer[1]}.{layers[layer[2]]}.{leaf}"


def reordered(name: str, values: Array, sizes: Sizes) -> Array:
    """Return a tensor with its rows in llama.cpp's order, by its name there. Any dtype; the shape is kept."""
    module = name.split(".")[-2]
    order = ROW_ORDERS.get(module)
    return values if order is None else order(values, sizes)


def _interleaved(values: Array, heads: int) -> Array:
    """Return rotary rows with the halves of each head interleaved: llama.cpp turns neighbours, not halves."""
    rows, *rest = values.shape
    return values.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(values.shape)


def _apart(values: Array, sizes: Sizes) -> Array:
    """Return Bloom's fused rows, which alternate head by head, as all queries, all keys, all values."""
    rows, *rest = values.shape
    split = values.reshape(sizes.heads, 3, rows // sizes.heads // 3, *rest)
    return split.swapaxes(0, 1).reshape(values.shape)


#: What puts the rows of a tensor into llama.cpp's order, by its name in a layer.
ROW_ORDERS: Mapping[str, Callable[[Array, Sizes], Array]] = {
    "attn_q": lambda values, sizes: _interleaved(values, sizes.heads),
    "attn_k": lambda values, sizes: _interleaved(values, sizes.key_value_heads),
    "attn_qkv": _apart,
}


def kept_in_float32(shape: tuple[int, ...]) -> bool:
    """Say whether a tensor of that shape stays float32 whatever the weights become: norms and biases."""
    return len(shape) < 2


def contiguous(values: Array, dtype: type[np.floating[Any]]) -> Array:
    """Return the values in `dtype`, rows one after the other. Any shape."""
    return np.ascontiguousarray(values, dtype=dtype)
