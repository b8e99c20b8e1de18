"""The keys that plugins declare for themselves: from `--option KEY=VALUE` and `[plugin.NAME]` to checked values.

    [plugin.chatglm]
    rule = "v11"

The table counts where that plugin is used. What `--option`, its variable or a profile says goes over it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.api import Range
from medchat.api.option import Option, default_values
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.settings.keys import Key, Kind
from medchat.settings.layered import Settings
from medchat.settings.values import checked, from_text
from medchat.user_paths import user_path

#: The setting whose value is a list of KEY=VALUE.
SETTING = "option"
_KINDS = {str: Kind.TEXT, Path: Kind.TEXT, bool: Kind.FLAG, int: Kind.WHOLE, float: Kind.NUMBER}
#: As far as a whole number or a number may go where the plugin says nothing.
_LEAST, _MOST = -math.inf, math.inf


@dataclass(frozen=True, slots=True)
class ChosenOption:
    """One key as it counts: its value in its type, and the place that says so (a flag, `file:line`)."""

    value: Any
    place: str


@dataclass(frozen=True, slots=True)
class _Said:
    """What a user wrote for a key. `of_folder`: in a file that came with the folder."""

    value: Any
    place: str
    of_folder: bool


def chosen_options(settings: Settings, plugin: str, options: Mapping[str, Option]) -> dict[str, ChosenOption]:
    """Return the keys of `plugin` that somebody chose, checked against what it declares.

    Raises UsageError naming flag, variable or `file:line`: a key that it does not have, a value that it does not
    take, a path or an address in a folder's own `medchat.toml`.
    """
    said = {**dict(_in_tables(settings, plugin)), **dict(_in_setting(settings))}
    return {
        name: ChosenOption(
            check_option(plugin, name, options, one.value, one.place, one.of_folder), one.place
        )
        for name, one in said.items()
    }


def option_values(settings: Settings, plugin: str, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return the value of each key of `plugin` that was chosen or has a default. Raises as `chosen_options`."""
    chosen = chosen_options(settings, plugin, options)
    return {**default_values(options), **{name: one.value for name, one in chosen.items()}}


def plugin_settings(plugin: str, options: Mapping[str, Option]) -> Mapping[str, Any]:
    """Return a command's own settings: what the table `[plugin.NAME]` of the configuration says, checked.

    `plugin` is NAME, `options` its keys; those without a value and a default are left out. Raises UsageError with
    file and line for a key that is not among them and a value that it does not take.
    """
    tables = {
        name: check_option(plugin, name, options, one.value, one.place, one.of_folder)
        for name, one in _in_tables(Settings.load(), plugin)
    }
    return {**default_values(options), **tables}


def split_option(text: str, place: str) -> tuple[str, str]:
    """Return key and value of KEY=VALUE. Raises UsageError."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not (name and equals and value.strip()):
        shown = sanitize_line(text, 60)
        raise UsageError(
            say(f"“{shown}”不是“键=值”的形式", f"{shown!r} is not of the form KEY=VALUE"),
            say("写成 --option 键=值", "write --option KEY=VALUE"),
            where=place,
        )
    return name, value


def check_option(
    plugin: str,
    name: str,
    options: Mapping[str, Option],
    value: Any,
    place: str,
    of_folder: bool = False,
) -> Any:
    """Return `value` in the type that the key has. Raises UsageError naming `place` and what is valid."""
    option = options.get(name)
    if option is None:
        raise _unknown(plugin, name, options, place)
    if of_folder and (option.kind is Path or "://" in str(value)):
        raise UsageError(
            say(
                f"当前目录的 medchat.toml 不能设置 {name}：路径和网址只能由用户自己指定",
                f"medchat.toml in this folder may not set {name}: paths and addresses are the user's own to choose",
            ),
            say(f"请用 --option {name}=…", f"use --option {name}=…"),
            where=place,
        )
    key = option_key(name, option)
    try:
        typed = isinstance(value, str) and option.kind is not str
        found = from_text(key, value, name) if typed else checked(key, value, name)
        if option.kind is float and not math.isfinite(found):
            raise UsageError(
                say(f"{name} 不是有限的数", f"{name} is not a finite number"),
                say("写一个普通的数，如 0.5", "write an ordinary number, such as 0.5"),
            )
    except UsageError as error:
        error.where = place
        raise
    return _existing(name, found, place) if option.kind is Path else found


def option_key(name: str, option: Option) -> Key:
    """Return the key as settings have them."""
    allowed = None
    if option.low is not None or option.high is not None:
        low = _LEAST if option.low is None else option.low
        allowed = Range(low, _MOST if option.high is None else option.high)
    zh, en = (option.summary.get(language, "") for language in ("zh", "en"))
    return Key(name, _KINDS[option.kind], option.default, zh, en, choices=option.choices, allowed=allowed)


def _existing(name: str, value: str, place: str) -> Path:
    path = user_path(value)
    if not path.exists():
        raise UsageError(
            say(
                f"{name}：找不到 {sanitize_line(value, 200)}",
                f"{name}: there is no {sanitize_line(value, 200)}",
            ),
            say("检查路径", "check the path"),
            where=place,
        )
    return path


def _in_tables(settings: Settings, plugin: str) -> Iterator[tuple[str, _Said]]:
    for name, (value, place, of_folder) in settings.plugin_table(plugin).items():
        yield name.replace("-", "_"), _Said(value, place, of_folder)


def _in_setting(settings: Settings) -> Iterator[tuple[str, _Said]]:
    origin, of_folder = settings.origin(SETTING), settings.is_of_folder(SETTING)
    for text in settings.value(SETTING) or ():
        name, value = split_option(text, str(origin))
        yield name, _Said(value, f"{origin} {name}", of_folder)


def _unknown(plugin: str, name: str, options: Mapping[str, Option], place: str) -> UsageError:
    shown, who = sanitize_line(name, 60), sanitize_line(plugin, 60)
    near = difflib.get_close_matches(name, options, n=1)
    names = ", ".join(sanitize_line(one, 60) for one in near or options)
    return UsageError(
        say(f"{who} 没有选项 {shown}", f"{who} has no option {shown}"),
        say(f"可选：{names}", f"it has: {names}") + say("；说明：", "; see: ") + f"medchat plugins show {who}"
        if options
        else say(f"{who} 没有自己的选项", f"{who} has none of its own"),
        where=place,
    )
