"""Reads the config.json of a Bloom checkpoint. Standard library only, so that `models show` stays fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.checkpoints.config_json import MOST, ConfigValues, DecoderShape, require_model_type
from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.layout import read_config, readable_config

MODEL_TYPE = "bloom"
#: The prefix of all names in the library's class; files saved from the inner model lack it.
PREFIX = "transformer."
EMBEDDING, HEAD = "transformer.word_embeddings.weight", "lm_head.weight"
#: Tables that the first releases stored and that are recomputed.
IGNORED = ("*.scale_mask_softmax.causal_mask",)
#: The sequence length of pre-training (docs/specs/models.md, "Bloom").
CONTEXT_LENGTH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class BloomShape(DecoderShape):
    """The dimensions and constants of a model. `end_ids` are those in config.json."""

    layer_norm_epsilon: float
    residual_after_norm: bool
    end_ids: tuple[int, ...]


def is_bloom(folder: Path) -> bool:
    """Return whether `folder` holds a readable config.json of this architecture."""
    return (readable_config(folder) or {}).get("model_type") == MODEL_TYPE


def read_bloom_shape(folder: Path) -> BloomShape:
    """Read config.json. Raises CheckpointError: missing, damaged, another architecture, invalid sizes."""
    config = read_config(folder)
    values = ConfigValues(config, folder / "config.json")
    require_model_type(values, MODEL_TYPE, "Bloom", ("Bloom 或活字", "Bloom or Huozi"))
    width, heads = values.size("hidden_size", "n_embed"), values.size("n_head", "num_attention_heads")
    if width % heads:
        raise values.impossible(f"hidden_size {width}, n_head {heads}")
    return BloomShape(
        vocab_size=values.size("vocab_size"),
        hidden_size=width,
        layers=values.size("n_layer", "num_hidden_layers"),
        heads=heads,
        context_length=values.size("seq_length", default=CONTEXT_LENGTH),
        layer_norm_epsilon=values.fraction("layer_norm_epsilon", 1e-5),
        residual_after_norm=values.switch("apply_residual_connection_post_layernorm", False),
        tied=values.switch("tie_word_embeddings", True),
        end_ids=_ids(config.get("eos_token_id"), values),
    )


def without_model_prefix(stored: str) -> str:
    """Return the model's name of a stored tensor: with the prefix that some files lack."""
    return stored if stored.startswith((PREFIX, "lm_head.")) else PREFIX + stored


def bloom_misfit(shape: BloomShape, headers: Mapping[str, TensorHeader]) -> str:
    """Return the size in config.json that differs from the tensors, by the model's names; "" if they agree."""
    embedding = headers.get(EMBEDDING)
    layers = {name.split(".")[2] for name in headers if name.startswith(f"{PREFIX}h.")}
    if embedding is not None and embedding.shape != (shape.vocab_size, shape.hidden_size):
        stored = "x".join(map(str, embedding.shape))
        return f"vocab_size x hidden_size {shape.vocab_size}x{shape.hidden_size}, {EMBEDDING} {stored}"
    if len(layers) != shape.layers:
        return f"n_layer {shape.layers}, transformer.h {len(layers)}"
    return ""


def _ids(value: Any, values: ConfigValues) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(number) is int and 0 <= number < MOST for number in ids):
        raise values.impossible(f"eos_token_id {value!r}")
    return tuple(ids)
