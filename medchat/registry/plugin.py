"""One plugin: importing it, checking it, calling its hooks, all under one guard.

Whatever a plugin raises (`SystemExit`, `RecursionError` and a `KeyboardInterrupt` of its own too, only signals
pass) becomes a `BrokenPluginError` naming the distribution. `MEDCHAT_STRICT=1` lets the original through, for
those who write plugins.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pluggy

from medchat import hookspecs
from medchat.api import API_VERSION
from medchat.disk import system_error
from medchat.errors import Interruption, MedchatError, MemoryShortageError, PluginError
from medchat.language import say
from medchat.registry.contract import ContractError, mismatch, require
from medchat.registry.metadata import PluginEntry, strict
from medchat.registry.under_way import PluginCall, call_under_way, under_way
from medchat.sanitize import sanitize_line

Answer = TypeVar("Answer")

#: What a plugin may raise on purpose: it names what is wrong with a model, a file or a setting, and its exit code.
ON_PURPOSE: tuple[type[Exception], ...] = (MedchatError,)


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


@dataclass(frozen=True, slots=True)
class SharedModel:
    """A model that several backbones recognise where none was named: the first of them by name is used."""

    backbones: tuple[str, ...]

    def __str__(self) -> str:
        names = [sanitize_line(name, 60) for name in self.backbones]
        return say(
            f"{'、'.join(names)} 都认识这个模型，现在用 {names[0]}；要换一个请加 --backbone",
            f"{', '.join(names)} all recognise this model: {names[0]} is used, --backbone chooses another",
        )


class BrokenPluginError(PluginError):
    """A plugin failed (exit code 5); `failure` says which and why."""

    def __init__(self, failure: PluginFailure, remedy: str, *, where: str = "") -> None:
        super().__init__(str(failure), remedy, where=where)
        self.failure = failure


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPlugin:
    """A plugin that was imported and checked. Its manager knows this plugin alone, so nothing it does
    to a hook (wrapping it, say) reaches another plugin's results."""

    entry: PluginEntry
    plugin: object
    manager: pluggy.PluginManager

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of the hooks that it implements, sorted."""
        return tuple(sorted(caller.name for caller in self.manager.get_hookcallers(self.plugin) or ()))

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
                    raise mismatch("list", result)
                items += [require(item, kind or Any) for item in result]
        return items


#: The distributions, other than our own, whose plugins were imported in this process.
imported_distributions: set[str] = set()


def load_plugin(entry: PluginEntry) -> LoadedPlugin:
    """Import and check the plugin behind `entry`. Raises BrokenPluginError."""
    if entry.distribution != "medchat":
        imported_distributions.add(entry.distribution)
    with guarded(entry):
        plugin = _imported(entry.value)
        _check_version(plugin)
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs.Hooks)
        manager.register(plugin)
        manager.check_pending()
        return LoadedPlugin(entry, plugin, manager)


@contextmanager
def guarded(entry: PluginEntry, where: str = "", passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever is raised inside, signals and `passing` excepted, into a BrokenPluginError for `entry`.

    `where` is the hook or the method that is called. What is raised for want of memory is a MemoryShortageError.
    """
    try:
        with under_way(entry, where):
            yield
    except BaseException as error:
        wish = _wish_to_end(error)
        if wish is not None and wish is not error:
            raise wish from error
        if wish is error or isinstance(error, BrokenPluginError) or strict():
            raise
        if isinstance(error, MemoryError):
            raise _out_of_memory() from error
        if isinstance(error, passing) and _can_be_shown(error):
            raise
        refused = system_error(error) if OSError in passing else None
        if refused is not None:
            raise refused from error
        raise _broken(PluginCall(entry, where), error) from error


def error_of_stuck_call() -> BrokenPluginError | None:
    """Return the error for a main thread that does not come back from a plugin, None if it is in none."""
    call = call_under_way()
    if call is None:
        return None
    return _broken(
        call,
        ContractError(
            say(
                "没有返回，也没有理会停止的要求",
                "did not come back and took no notice of the request to stop",
            )
        ),
    )


def _broken(call: PluginCall, error: BaseException) -> BrokenPluginError:
    entry = call.entry
    failure = PluginFailure(entry.distribution, entry.name, call.failed(described(error)))
    return BrokenPluginError(failure, _remedy(entry, error), where=sanitize_line(entry.value))


def asked(
    entry: PluginEntry,
    where: str,
    question: Callable[[], Answer],
    hint: Any,
    passing: tuple[type[Exception], ...] = ON_PURPOSE,
) -> Answer:
    """Return what `question` gets from the plugin, of the type that `hint` writes. Raises BrokenPluginError."""
    with guarded(entry, where, passing):
        answer: Answer = require(question(), hint)
        return answer


def _wish_to_end(error: BaseException | None) -> BaseException | None:
    """Return the signal's own exception that `error` is, or came of; None for a failure of the plugin.

    A plugin may turn it into another exception on its way. A KeyboardInterrupt is the plugin's own where Ctrl-C
    raises another, or none (in a thread).
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, Interruption):
            return error
        if isinstance(error, KeyboardInterrupt) and _raised_by_python():
            return error
        error = error.__cause__ or error.__context__
    return None


def _raised_by_python() -> bool:
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _can_be_shown(error: BaseException) -> bool:
    """Whether an error of our family has the texts and the exit code of one."""
    if not isinstance(error, MedchatError):
        return True
    texts = [getattr(error, name, None) for name in ("what", "remedy", "where")]
    code = error.exit_code
    return all(isinstance(text, str) for text in texts) and type(code) is int and 0 < code < 256


def _out_of_memory() -> MemoryShortageError:
    """Return Python's MemoryError as one of ours: its own says nothing to a user."""
    return MemoryShortageError(
        say("运行中内存不足", "memory ran out while running"),
        say(
            "调低 --max-new-tokens，或加上 --quantize int8", "lower --max-new-tokens, or use --quantize int8"
        ),
    )


def described(error: BaseException) -> str:
    """Return one sanitised line for `error`, whatever its `__str__` does."""
    try:
        text = sanitize_line(str(error))
    except BaseException as second:
        if _wish_to_end(second) is second:
            raise
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
            f"它的 medchat_api_version 是 {written}，当前 MedChat 只支持 {API_VERSION}"
            "（改从 medchat.plugin_kit 导入，见 docs/plugins/versions.md）",
            f"its medchat_api_version is {written}, this MedChat has {API_VERSION}"
            " (import from medchat.plugin_kit: docs/plugins/versions.md)",
        )
    )


def _remedy(entry: PluginEntry, error: BaseException) -> str:
    if entry.distribution == "medchat":
        if isinstance(error, ImportError):
            return say("MedChat 的安装不完整，请重新安装", "MedChat itself is damaged: install it again")
        return say(
            "这是 MedChat 自身的问题：设置 MEDCHAT_STRICT=1 并加上 --debug 再运行一次，然后反馈输出的内容",
            "a defect of MedChat itself: run again with MEDCHAT_STRICT=1 and --debug, and report the output",
        )
    name = sanitize_line(entry.distribution, 60)
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "medchat":
        return say(
            f"升级它：pip install -U {name}；它导入了 MedChat 的内部模块，作者应改从 medchat.plugin_kit 导入",
            f"upgrade it: pip install -U {name}; it imports what is private to MedChat, its author imports from"
            " medchat.plugin_kit instead",
        )
    return say(
        f"升级或卸载它：pip install -U {name} / pip uninstall {name}；它的作者可用 MEDCHAT_STRICT=1 看完整错误",
        f"upgrade or remove it: pip install -U {name} / pip uninstall {name}; its author sees it all with "
        "MEDCHAT_STRICT=1",
    )
