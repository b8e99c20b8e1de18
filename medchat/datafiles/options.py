"""The options of a multiple-choice question, as the lines that belong under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medchat.datafiles.fields import RecordError
from medchat.language import say

_LETTERS = "ABCDEFGHIJ"
#: A longer key of an object is no letter or number of an option: the object holds something else.
_LONGEST_KEY = 4
#: An option in a list may be an object of these two.
_KEY_AND_TEXT = (("key", "value"), ("key", "text"), ("label", "text"), ("label", "value"))


def holds_options(value: Any) -> bool:
    """Whether the field holds options at all: an object of any other things is not read as such."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and 0 < len(key.strip()) <= _LONGEST_KEY for key in value)
    return isinstance(value, (str, list))


def options_text(name: str, value: Any) -> str:
    """Return the options one a line, lettered where they have no letters. Raises RecordError."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict):
        return "\n".join(f"{key.strip()}. {_text(name, option)}" for key, option in value.items())
    if len(value) > len(_LETTERS):
        raise RecordError(say(f"{name} 多于 {len(_LETTERS)} 个", f"{name}: over {len(_LETTERS)} of them"))
    return "\n".join(_line(name, letter, option) for letter, option in zip(_LETTERS, value, strict=False))


def lettered_columns(record: Mapping[str, Any]) -> list[str]:
    """Return the columns A, B, C, … of a record that has at least two of them, with texts; [] for none."""
    there = []
    for letter in _LETTERS:
        if not isinstance(record.get(letter), str):
            break
        there.append(letter)
    return there if len(there) > 1 else []


def _line(name: str, letter: str, option: Any) -> str:
    if isinstance(option, dict):
        for key, text in _KEY_AND_TEXT:
            if key in option and text in option:
                return f"{_text(name, option[key])}. {_text(name, option[text])}"
    return f"{letter}. {_text(name, option)}"


def _text(name: str, option: Any) -> str:
    if isinstance(option, str) or (isinstance(option, (int, float)) and not isinstance(option, bool)):
        return str(option).strip()
    raise RecordError(say(f"{name} 里应当都是文本", f"{name} must hold texts"))
