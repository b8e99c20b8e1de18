"""What the small files of a folder say of its special tokens: which there are and which has which role. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medchat.checkpoints.json_object import read_json_object

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG = "special_tokens_map.json", "tokenizer_config.json"
#: The former goes before the latter.
DECLARING_FILES = (SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG)
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_MORE = ("additional_special_tokens", "extra_special_tokens")


def declared_tokens(folder: Path) -> dict[str, str]:
    """Return the control tokens that the small files of a folder name, by role (`eos_token`, …).

    Additional ones are under `additional_special_tokens.N`. special_tokens_map.json goes before
    tokenizer_config.json. Raises CheckpointError if one of the two is there and damaged.
    """
    found: dict[str, str] = {}
    for name in reversed(DECLARING_FILES):
        found |= _declared(_stated(folder / name))
    return found


def states_bos(folder: Path) -> bool | None:
    """Return whether tokenizer_config.json has `bos_token` put in front of a text, None where it does not say.

    Raises CheckpointError if the file is damaged.
    """
    said = _stated(folder / TOKENIZER_CONFIG).get("add_bos_token")
    return said if isinstance(said, bool) else None


def stated_ends(folder: Path) -> frozenset[int]:
    """Return the ids that config.json and generation_config.json have an answer end with.

    Raises CheckpointError if one of the two is there and damaged.
    """
    found: set[int] = set()
    for name in (CONFIG, GENERATION_CONFIG):
        ends = _stated(folder / name).get("eos_token_id")
        found |= {end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int}
    return frozenset(found)


def _stated(path: Path) -> Mapping[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _declared(stated: Mapping[str, Any]) -> dict[str, str]:
    found = {role: token for role in _NAMED if (token := _content(stated.get(role)))}
    for number, token in enumerate(_additional(stated)):
        found[f"{_MORE[0]}.{number}"] = token
    return found


def _additional(stated: Mapping[str, Any]) -> Iterator[str]:
    for key in _MORE:
        entries = stated.get(key)
        if isinstance(entries, dict):
            entries = list(entries.values())
        for entry in entries if isinstance(entries, list) else ():
            if token := _content(entry):
                yield token


def _content(entry: Any) -> str:
    """Return the token of an entry, which is its text or an object that holds it."""
    token = entry.get("content") if isinstance(entry, dict) else entry
    return token if isinstance(token, str) else ""
