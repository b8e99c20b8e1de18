"""One plugin: importing it, checking it, calling its hooks, all under one guard.

Whatever a plugin raises (`SystemExit` and `RecursionError` too, only signals pass) becomes a
`BrokenPluginError` naming the distribution. `MEDCHAT_STRICT=1` lets the original through, for
those who write plugins.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pluggy

from medchat import hookspecs
from medchat.api import API_VERSION
from medchat.errors import Interruption, PluginError
from medchat.language import say
from medchat.registry.metadata import PluginEntry
from medchat.sanitize import sanitize_line


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that could not be used. `reason` is one line, already sanitised."""

    distribution: str
    entry: str
    reason: str

    def __str__(self) -> str:
        who = sanitize_line(self.distribution, 60)
        name = sanitize_line(self.entry, 60)
        return say(f"插件 {who}（{name}）出错：{self.reason}", f"plugin {who} ({name}) failed: {self.reason}")


class BrokenPluginError(PluginError):
    """A plugin failed (exit code 5); `failure` says which and why."""

    def __init__(self, failure: PluginFailure, remedy: str, *, where: str = "") -> None:
        super().__init__(str(failure), remedy, where=where)
        self.failure = failure


class ContractError(Exception):
    """The plugin itself did not raise, but something about it is not as it must be."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPlugin:
    """A plugin that was imported and checked. Its manager knows this plugin alone, so nothing it does
    to a hook (wrapping it, say) reaches another plugin's results."""

    entry: PluginEntry
    plugin: object
    manager: pluggy.PluginManager

    def call(self, hook: str, arguments: Mapping[str, object]) -> list[Any]:
        """Return what the plugin's implementation of `hook` returned, in a list; empty without one.

        Raises BrokenPluginError.
        """
        with guarded(self.entry, hook):
            found: list[Any] = getattr(self.manager.hook, hook)(**arguments)
            return found

    def items(self, hook: str, kind: type | None = None, **arguments: object) -> list[Any]:
        """Return the members of the list or tuple that `hook` returned, each an instance of `kind`.

        Raises BrokenPluginError, also where the result is of another kind.
        """
        items: list[Any] = []
        for result in self.call(hook, arguments):
            with guarded(self.entry, hook):
                if not isinstance(result, (list, tuple)):
                    raise ContractError(_returned(result, "list"))
                for item in result:
                    if kind is not None and not isinstance(item, kind):
                        raise ContractError(_returned(item, kind.__name__))
                items += result
        return items


def load_plugin(entry: PluginEntry) -> LoadedPlugin:
    """Import and check the plugin behind `entry`. Raises BrokenPluginError."""
    with guarded(entry):
        plugin = _imported(entry.value)
        _check_version(plugin)
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs.Hooks)
        manager.register(plugin)
        manager.check_pending()
        return LoadedPlugin(entry, plugin, manager)


@contextmanager
def guarded(entry: PluginEntry, hook: str = "", passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever is raised inside, signals and `passing` excepted, into a BrokenPluginError for `entry`."""
    try:
        yield
    except (KeyboardInterrupt, Interruption):
        raise
    except passing:
        raise
    except BaseException as error:
        if os.environ.get("MEDCHAT_STRICT") == "1":
            raise
        reason = described(error)
        if hook:
            reason = f"{hook}: {reason}"
        failure = PluginFailure(entry.distribution, entry.name, reason)
        raise BrokenPluginError(failure, _remedy(entry), where=sanitize_line(entry.value)) from error


def described(error: BaseException) -> str:
    """Return one sanitised line for `error`, whatever its `__str__` does."""
    try:
        text = sanitize_line(str(error))
    except Exception:
        text = ""
    if isinstance(error, ContractError):
        return text
    kind = type(error).__name__
    return sanitize_line(f"{kind}: {text}" if text else kind)


def _imported(value: str) -> object:
    """Return what `module` or `module:attribute` names (an `[extra]` behind it is not looked at)."""
    module_name, _, attributes = value.partition("[")[0].strip().partition(":")
    found: object = importlib.import_module(module_name.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        found = getattr(found, attribute)
    return found


def _check_version(plugin: object) -> None:
    stated = getattr(plugin, "medchat_api_version", None)
    if type(stated) is int and stated == API_VERSION:
        return
    if stated is None:
        raise ContractError(
            say(
                f"没有写明 medchat_api_version（当前为 {API_VERSION}）",
                f"it does not state medchat_api_version (this MedChat has {API_VERSION})",
            )
        )
    written = repr(stated)  # as in the plugin's source: the text "1" is not the number
    raise ContractError(
        say(
            f"它的 medchat_api_version 是 {written}，当前 MedChat 只支持 {API_VERSION}",
            f"its medchat_api_version is {written}, this MedChat has {API_VERSION}",
        )
    )


def _returned(value: object, expected: str) -> str:
    kind = type(value).__name__
    return say(f"应当返回 {expected}，却得到 {kind}", f"returned {kind} where {expected} was expected")


def _remedy(entry: PluginEntry) -> str:
    if entry.distribution == "medchat":
        return say("MedChat 的安装不完整，请重新安装", "MedChat itself is damaged: install it again")
    name = sanitize_line(entry.distribution, 60)
    return say(
        f"升级或卸载它：pip install -U {name} / pip uninstall {name}；MEDCHAT_STRICT=1 可看完整错误",
        f"upgrade or remove it: pip install -U {name} / pip uninstall {name}; MEDCHAT_STRICT=1 shows it all",
    )
