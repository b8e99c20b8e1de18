"""Options: a key of a plugin's own, and how the options of all are typed as flags. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Flags whose name is not their option's: repeatable ones are in the singular.
FLAGS: Mapping[str, str] = {"adapters": "--adapter", "extra": "--option"}

_KINDS: tuple[type, ...] = (str, int, float, bool, Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A key of a backbone (`Backbone.load_keys`) or of a command (`plugin_settings`), checked before it is used.

    Users set it by `--option KEY=VALUE`, or in the table `[plugin.NAME]` of their configuration. Raises ValueError
    for what cannot be declared.
    """

    #: The type of its value: str, int, float, bool, or Path for a file or folder that must be there.
    kind: type = str
    #: The only values of a str.
    choices: tuple[str, ...] = ()
    #: The least int or float.
    low: float | None = None
    #: The greatest int or float.
    high: float | None = None
    #: What counts where nobody chose; None: then the key is not there.
    default: Any = None
    #: What it means, in each language, e.g. {"zh": "…", "en": "…"}.
    summary: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = self.kind in (int, float)
        if self.kind not in _KINDS:
            raise ValueError(f"Option.kind must be str, int, float, bool or Path, not {self.kind!r}")
        if self.choices and self.kind is not str:
            raise ValueError("Option.choices are of a str")
        if not numbers and (self.low is not None or self.high is not None):
            raise ValueError("Option.low and Option.high are of an int or a float")
        if self.default is not None and type(self.default) is not self.kind:
            raise ValueError(f"Option.default must be of type {self.kind.__name__}")


def declared_options(load_keys: Mapping[str, Option | tuple[str, ...]]) -> Mapping[str, Option]:
    """Return what a backbone declares, a bare tuple of choices as the option that it stands for."""
    return {
        name: option if isinstance(option, Option) else Option(choices=tuple(option))
        for name, option in load_keys.items()
    }


def default_values(options: Mapping[str, Option]) -> dict[str, Any]:
    """Return what counts for each key where nobody chose; a key without a default is not there."""
    return {name: option.default for name, option in options.items() if option.default is not None}


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
