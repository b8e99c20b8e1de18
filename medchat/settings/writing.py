"""Writing into the user's own configuration file: one setting, or a profile. All else there stays as it is.

What was written is read back before it takes the file's place: a file that would mean anything else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import SETTINGS_BYTES
from medchat.settings.files import parse_settings, text_of
from medchat.settings.keys import key_named
from medchat.settings.profiles import TABLE, check_name
from medchat.settings.values import checked
from medchat.whole_file import write_whole_file

_HEADER = re.compile(r"\s*\[")


def save_setting(path: Path, name: str, value: Any) -> None:
    """Set `name` (of no table) to `value` in the file at `path`, made if need be. Raises UsageError, OSError."""
    key = key_named(name)
    line = f"{key.name} = {_in_toml(value)}"

    def change(lines: list[str]) -> list[str]:
        end = next((number for number, text in enumerate(lines) if _HEADER.match(text)), len(lines))
        own = re.compile(rf"\s*{re.escape(key.name)}\s*=")
        kept = [text for text in lines[:end] if not own.match(text)]
        return [*kept, line, *([""] if end < len(lines) and kept[-1:] != [""] else []), *lines[end:]]

    _rewrite(path, change, lambda meaning: meaning.values.update({key.name: value}))


def save_profile(path: Path, name: str, values: Mapping[str, Any]) -> None:
    """Put the profile into the file at `path`, in place of one of that name. Raises UsageError, OSError."""
    check_name(name)
    headers = {f"[{TABLE}{name}]", f"[{TABLE}{json.dumps(name, ensure_ascii=False)}]"}
    header = f"[{TABLE}{name if name.isascii() else json.dumps(name, ensure_ascii=False)}]"
    block = [header, *(f"{key} = {_in_toml(value)}" for key, value in values.items())]

    def change(lines: list[str]) -> list[str]:
        start = next((number for number, text in enumerate(lines) if text.strip() in headers), None)
        if start is None:
            return [*lines, *([""] if lines and lines[-1].strip() else []), *block]
        after = (number for number in range(start + 1, len(lines)) if _HEADER.match(lines[number]))
        end = next(after, len(lines))
        return [*lines[:start], *block, *([""] if end < len(lines) else []), *lines[end:]]

    keys = {key_named(short): value for short, value in values.items()}
    named = {key.name: checked(key, value, key.name) for key, value in keys.items()}
    _rewrite(path, change, lambda meaning: meaning.profiles.update({name: named}))


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a file sets, wherever it says so."""

    values: dict[str, Any]
    profiles: dict[str, dict[str, Any]]
    presets: dict[str, str]
    plugins: dict[str, dict[str, Any]]


def _meaning(text: str, path: Path) -> _Meaning:
    found = parse_settings(text, path, project=False)
    profiles = {name: _without_places(values) for name, values in found.profiles.items()}
    plugins = {name: _without_places(values) for name, values in found.plugins.items()}
    return _Meaning(_without_places(found.values), profiles, found.presets, plugins)


def _without_places(values: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    return {name: value for name, (value, _) in values.items()}


def _rewrite(
    path: Path, change: Callable[[list[str]], list[str]], expect: Callable[[_Meaning], None]
) -> None:
    before = text_of(path) or ""
    wanted = _meaning(before, path)
    expect(wanted)
    # Not `splitlines`: a text may hold a separator of lines that TOML knows nothing of.
    text = "\n".join(change(before.removesuffix("\n").split("\n") if before else [])) + "\n"
    try:
        whole = _meaning(text, path) == wanted
    except UsageError:
        whole = False
    if not whole or len(text.encode()) > SETTINGS_BYTES:
        raise _cannot(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole_file(path, text, private=True)


def _cannot(path: Path) -> UsageError:
    return UsageError(
        say(
            "无法可靠地改写配置文件，没有改动",
            "the configuration cannot be changed safely and was left alone",
        ),
        say("请手工编辑它", "edit it by hand"),
        where=str(path),
    )


def _in_toml(value: Any) -> str:
    # A JSON text is a basic string of TOML, but for one control character that JSON lets stand.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )
