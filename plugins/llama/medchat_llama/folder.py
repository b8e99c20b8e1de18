"""Reads the config.json of a LLaMA checkpoint, and recognises the published bases.

Standard library only, so that `models show` stays fast. See
docs/specs/models.md, "LLaMA and Chinese-Alpaca".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.checkpoints.config_json import ConfigValues, DecoderShape, require_model_type
from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.layout import read_config
from medchat.plugin_kit import say

MODEL_TYPE = "llama"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
#: Tables that the published files store and that are recomputed.
IGNORED = ("*.rotary_emb.inv_freq",)
CONTEXT_LENGTH = 2048
#: The rows of the published vocabularies, and the base of each (a key of known_adapters.BASES).
BASE_OF_ROWS: Mapping[int, str] = {32000: "llama", 49953: "chinese-llama", 49954: "chinese-alpaca"}
#: Width, layers and heads of the 7B models.
SEVEN_BILLION = (4096, 32, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape(DecoderShape):
    """The dimensions and constants of a model."""

    inner_size: int
    key_value_heads: int
    norm_epsilon: float
    rope_theta: float


def is_llama(config: Mapping[str, Any]) -> bool:
    """Return whether the object in a config.json is of this architecture."""
    return config.get("model_type") == MODEL_TYPE


def base_of(rows: int) -> str:
    """Return the published base with that many rows, or the rows as text, which is not a base's name."""
    return BASE_OF_ROWS.get(rows, say(f"词表为 {rows} 行的 LLaMA", f"a LLaMA with {rows} rows"))


def read_llama_shape(folder: Path) -> LlamaShape:
    """Read config.json. Raises CheckpointError: missing, damaged, another architecture, invalid values.

    The ids of special tokens are not read: the published ones are wrong (bos 0, eos 1, pad -1).
    """
    values = ConfigValues(read_config(folder), folder / "config.json")
    weights = ("LLaMA 或 Chinese-Alpaca ", "LLaMA or Chinese-Alpaca")
    require_model_type(values, MODEL_TYPE, "LLaMA", weights)
    heads, hidden = values.size("num_attention_heads"), values.size("hidden_size")
    shape = LlamaShape(
        vocab_size=values.size("vocab_size"),
        hidden_size=hidden,
        inner_size=values.size("intermediate_size"),
        layers=values.size("num_hidden_layers"),
        heads=heads,
        key_value_heads=values.size("num_key_value_heads", default=heads),
        # The first conversions use another name; some later ones state both, and this one is right.
        context_length=values.size("max_sequence_length", "max_position_embeddings", default=CONTEXT_LENGTH),
        norm_epsilon=values.fraction("rms_norm_eps", 1e-6),
        rope_theta=_rope_theta(values),
        tied=values.switch("tie_word_embeddings", False),
    )
    if hidden % (2 * heads) or heads % shape.key_value_heads:
        raise values.impossible(f"hidden_size {hidden}, heads {heads}, {shape.key_value_heads}")
    _refuse_later_kinds(values, shape)
    return shape


def stored_rows(headers: Mapping[str, TensorHeader], shape: LlamaShape) -> int:
    """Return the rows of the stored embedding: config.json may state those before a merge."""
    embedding = headers.get(EMBEDDING)
    return embedding.shape[0] if embedding is not None and embedding.shape else shape.vocab_size


def llama_misfit(shape: LlamaShape, headers: Mapping[str, TensorHeader]) -> str:
    """Return the size in config.json that differs from the tensors, "" if they agree. Rows may differ."""
    layers = {name.split(".")[2] for name in headers if name.startswith("model.layers.")}
    embedding = headers.get(EMBEDDING)
    if len(layers) != shape.layers:
        return f"num_hidden_layers {shape.layers}, model.layers {len(layers)}"
    if embedding is not None and embedding.shape[1:] != (shape.hidden_size,):
        return f"hidden_size {shape.hidden_size}, {EMBEDDING} {'x'.join(map(str, embedding.shape))}"
    return ""


def _rope_theta(values: ConfigValues) -> float:
    """Return the base of the rotary frequencies; the current library nests it with keys that must be defaults."""
    nested = values.stated.get("rope_parameters")
    scaling = values.stated.get("rope_scaling")
    for table in (nested, scaling):
        if table is None:
            continue
        kind = table.get("rope_type", table.get("type", "default")) if isinstance(table, dict) else table
        if kind != "default":
            raise values.impossible(f"rope {kind!r}")
    holder = ConfigValues(nested, values.file) if isinstance(nested, dict) else values
    return holder.fraction("rope_theta", 10000.0, most=1e12)


def _refuse_later_kinds(values: ConfigValues, shape: LlamaShape) -> None:
    """Refuse models of the same model type that compute differently: answers would be silently wrong."""
    if values.word("hidden_act", "silu") != "silu":
        raise values.impossible(f"hidden_act {values.stated['hidden_act']!r}")
    for key in ("attention_bias", "mlp_bias"):
        if values.switch(key, False):
            raise values.impossible(f"{key} true")
    own = shape.hidden_size // shape.heads
    if values.size("head_dim", default=own) != own:
        raise values.impossible(f"head_dim {values.stated['head_dim']}")
