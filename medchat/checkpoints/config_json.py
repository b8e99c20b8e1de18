"""The values of a config.json, each of the kind its key needs. No torch here.

A file of unknown origin may hold anything; what is read here is safe to build a model from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.errors import CheckpointError
from medchat.language import say

#: Far beyond any id, and still an index that torch takes.
MOST = 2**31
#: The largest sizes that are believed: each several times that of any published decoder.
_WIDTH, _INNER, _LAYERS, _HEADS, _ROWS, _CONTEXT = 2**17, 2**19, 2**10, 2**12, 2**22, 2**24
LARGEST: Mapping[str, int] = {
    "vocab_size": _ROWS,
    "hidden_size": _WIDTH,
    "n_embed": _WIDTH,
    "n_embd": _WIDTH,
    "d_model": _WIDTH,
    "head_dim": _WIDTH,
    "intermediate_size": _INNER,
    "inner_hidden_size": _INNER,
    "num_hidden_layers": _LAYERS,
    "num_layers": _LAYERS,
    "n_layer": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "n_head": _HEADS,
    "max_sequence_length": _CONTEXT,
    "max_position_embeddings": _CONTEXT,
    "seq_length": _CONTEXT,
    "n_positions": _CONTEXT,
    "n_ctx": _CONTEXT,
    "n_inner": _INNER,
}


@dataclass(frozen=True, slots=True)
class ConfigValues:
    """The object in a config.json. Every method raises CheckpointError for a value of another kind."""

    stated: Mapping[str, Any]
    file: Path

    def size(self, *keys: str, default: int | None = None) -> int:
        """Return the positive whole number that the first present of `keys` holds; one of them must be.

        Raises CheckpointError, also for one beyond what LARGEST has for its key.
        """
        key = self._first(keys)
        value = default if key is None else self.stated[key]
        if type(value) is not int or not 0 < value <= LARGEST[key or keys[0]]:
            raise self.impossible(f"{key or keys[0]} {value!r}")
        return value

    def fraction(self, key: str, default: float, *, most: float = 1.0) -> float:
        """Return the number above 0 and below `most` under `key`. Raises CheckpointError."""
        value = self.stated.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < most:
            raise self.impossible(f"{key} {value!r}")
        return float(value)

    def switch(self, key: str, default: bool) -> bool:
        """Return the truth value under `key`. Raises CheckpointError."""
        value = self.stated.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.impossible(f"{key} {value!r}")
        return value

    def word(self, key: str, default: str) -> str:
        """Return the text under `key`. Raises CheckpointError."""
        value = self.stated.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.impossible(f"{key} {value!r}")
        return value

    def impossible(self, reason: str) -> CheckpointError:
        """Return the error for a value that no model of the family has."""
        shown = reason[:120]
        return CheckpointError(
            say(f"config.json 的内容无效（{shown}）", f"config.json holds an impossible value ({shown})"),
            say(
                "请从权重的来源重新下载 config.json",
                "fetch config.json again from where the weights came from",
            ),
            where=str(self.file),
        )

    def _first(self, keys: tuple[str, ...]) -> str | None:
        return next((key for key in keys if self.stated.get(key) is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """What config.json states of every causal model, read and checked. `vocab_size` are rows as stated."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    context_length: int
    tied: bool


def require_model_type(values: ConfigValues, model_type: str, title: str, weights: tuple[str, str]) -> None:
    """Raise CheckpointError unless the file is of this architecture.

    `title` is what people call it, `weights` which weights have it, in Chinese and English.
    """
    stated = values.stated.get("model_type")
    if stated == model_type:
        return
    found = str(stated or say("未注明类型的模型", "a model of no stated type"))[:60]
    raise CheckpointError(
        say(
            f"这是 {found}，不是 {title} 结构的模型",
            f"this is {found}, not a model of {title}'s architecture",
        ),
        say(
            f"请换用 {weights[0]}的权重，或换用支持它的 --backbone（medchat plugins list）",
            f"use weights of {weights[1]}, or a --backbone that supports it (medchat plugins list)",
        ),
        where=str(values.file),
    )
