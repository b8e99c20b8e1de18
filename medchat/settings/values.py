"""From what a file, a variable, a flag or `/set` gives to a checked value, or an error that says where."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from medchat.errors import UsageError
from medchat.language import say
from medchat.settings.keys import Key, Kind
from medchat.user_paths import user_path

TRUE_WORDS = ("1", "true", "yes", "on", "是", "开")
FALSE_WORDS = ("0", "false", "no", "off", "否", "关")

_TYPES: dict[Kind, Any] = {
    Kind.TEXT: (str,),
    Kind.FLAG: (bool,),
    Kind.WHOLE: (int,),
    Kind.NUMBER: (int, float),
}


def from_text(key: Key, text: str, label: str) -> Any:
    """Return the value that `text` (a variable, or the words after `/set`) stands for.

    `label` is what the user would call the place: the variable's or the setting's name. Raises UsageError.
    """
    text = text.strip() if key.kind is not Kind.TEXT else text
    value: Any = text
    try:
        if key.kind is Kind.WHOLE:
            value = int(text)
        elif key.kind is Kind.NUMBER:
            value = float(text)
        elif key.kind is Kind.FLAG:
            value = True if text.lower() in TRUE_WORDS else False if text.lower() in FALSE_WORDS else text
        elif key.kind is Kind.LIST:
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif key.name == "lang":
            value = text.strip().lower()[:2]  # as in the locale's own names: zh_CN.UTF-8
    except ValueError:
        raise _wrong_type(key, text, label, "") from None
    return checked(key, value, label)


def checked(key: Key, value: Any, label: str, where: str = "") -> Any:
    """Return `value` in its final type. Raises UsageError naming `label`, `where` and what is valid."""
    if key.kind is Kind.LIST:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            raise _wrong_type(key, value, label, where)
        for part in value:
            if key.choices and part not in key.choices:
                raise _invalid(part, label, where, " | ".join(key.choices))
        return tuple(value)
    if not isinstance(value, _TYPES[key.kind]) or (isinstance(value, bool) and key.kind is not Kind.FLAG):
        raise _wrong_type(key, value, label, where)
    if key.choices and value not in key.choices:
        raise _invalid(value, label, where, " | ".join(key.choices))
    if key.pattern and not re.fullmatch(key.pattern, value):
        raise _invalid(value, label, where, key.summary)
    if key.allowed is not None and value not in key.allowed:
        raise UsageError(
            say(f"{label} 的值 {value} 超出范围", f"{label} {value} is out of range"),
            say(f"有效范围是 {key.allowed}", f"the valid range is {key.allowed}"),
            where=where,
        )
    return float(value) if key.kind is Kind.NUMBER else value


def resolved(key: Key, value: Any, folder: Path) -> Any:
    """Return a value from a file with `./`, `../` and `~` in paths made absolute, seen from that file."""
    if not key.is_path:
        return value
    if isinstance(value, tuple):
        return tuple(_resolved(part, folder) for part in value)
    return _resolved(value, folder)


def _resolved(text: str, folder: Path) -> str:
    if text.startswith("~"):
        return str(user_path(text))
    if text in (".", "..") or text.startswith(("./", "../")):
        return os.path.realpath(user_path(str(folder / text)))  # pathlib raises for a loop of links
    return text


def _wrong_type(key: Key, value: Any, label: str, where: str) -> UsageError:
    return UsageError(
        say(f"{label} 的值{_shown(value)}类型不对", f"{label}: {_shown(value)} is of the wrong type"),
        say(f"应为{key.kind.described()}", f"it must be {key.kind.described()}"),
        where=where,
    )


def _invalid(value: Any, label: str, where: str, valid: str) -> UsageError:
    return UsageError(
        say(f"{label} 的值{_shown(value)}无效", f"{label}: {_shown(value)} is not valid"),
        say(f"有效值：{valid}", f"valid: {valid}"),
        where=where,
    )


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, str) else repr(value)
    text = text if len(text) <= 60 else text[:59] + "…"
    return say(f"“{text}”", repr(text)) if isinstance(value, str) else say(f" {text} ", text)
