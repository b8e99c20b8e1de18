"""How settings are typed as flags, for advice that can be copied. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Flags whose name is not their option's: repeatable ones are in the singular.
FLAGS: Mapping[str, str] = {"adapters": "--adapter", "extra": "--option"}


def option_flag(name: str) -> str:
    """Return the flag that sets the option or setting of that name: `top_p` is `--top-p`."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def as_typed(changes: Mapping[str, Any]) -> str:
    """Return options with their values as they are typed: switches without, lists by commas, `extra` key by key."""
    return " ".join(word for name, value in changes.items() for word in _words(name, value))


def _words(name: str, value: Any) -> list[str]:
    flag = option_flag(name)
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag.removeprefix("--")]
    if isinstance(value, Mapping):
        return [f"{flag} {key}={item}" for key, item in value.items()]
    if name in FLAGS:
        return [f"{flag} {item}" for item in value]
    return [f"{flag} {','.join(map(str, value)) if isinstance(value, tuple | list) else value}"]
