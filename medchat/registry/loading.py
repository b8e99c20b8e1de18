"""The registry: which plugins there are, and the code of the one that is requested.

Knows no command line, no settings file and no model. Names come from `medchat.registry.metadata`;
nothing is imported until a backbone, the extensions or a command is asked for.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from medchat.api import Backbone, PromptTemplate
from medchat.errors import PluginError, UsageError
from medchat.language import say
from medchat.registry.contract import ContractError
from medchat.registry.extensions import Extensions, templates_of
from medchat.registry.guard import GuardedBackbone
from medchat.registry.metadata import (
    BACKBONES,
    COMMANDS,
    EXTENSIONS,
    PluginEntry,
    allowed_names,
    conflicts,
    scan,
)
from medchat.registry.plugin import (
    BrokenPluginError,
    LoadedPlugin,
    PluginFailure,
    SharedModel,
    guarded,
    load_plugin,
)
from medchat.sanitize import sanitize_line

Answer = TypeVar("Answer")
Command = TypeVar("Command")


class Registry:
    """The plugins of this process. May be used from several threads.

    `entries` defaults to what is installed; `allowed` (names) to `MEDCHAT_PLUGINS`, where None allows all.
    """

    def __init__(
        self, entries: Iterable[PluginEntry] | None = None, allowed: Collection[str] | None = None
    ) -> None:
        self._installed = list(scan() if entries is None else entries)
        chosen = allowed_names() if allowed is None else allowed
        self.entries = tuple(entry for entry in self._installed if chosen is None or entry.name in chosen)
        self._conflicts = conflicts(list(self.entries))
        self._loaded: dict[tuple[str, str], LoadedPlugin] = {}
        self._noted: dict[PluginFailure | SharedModel, None] = {}
        self._chosen: dict[LoadedPlugin, None] = {}
        self._lock = threading.RLock()
        for claimants in self._conflicts.values():
            self.note(_conflict(claimants))

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """Plugins found broken so far, each once: two claiming one name, and those that failed."""
        return tuple(noted for noted in self._noted if isinstance(noted, PluginFailure))

    def lines(self) -> tuple[str, ...]:
        """Return what the user should know of the plugins so far, one line each: `failures` and shared models."""
        return tuple(map(str, self._noted))

    def names(self) -> tuple[str, ...]:
        """Return the names `--backbone` takes, sorted, without importing any plugin."""
        names = {entry.name for entry in self.entries if entry.group == BACKBONES}
        return tuple(sorted(name for name in names if (BACKBONES, name) not in self._conflicts))

    def backbone(self, name: str) -> GuardedBackbone:
        """Import the plugin that offers backbone `name`, and no other, and return the backbone behind its guard.

        Its other hooks take part in `extensions` from then on. Raises UsageError for a name nobody offers or
        that `MEDCHAT_PLUGINS` leaves out, PluginError if two offer it or the plugin fails.
        """
        plugin = self._load(self._entry(BACKBONES, name))
        offered: list[Backbone] = plugin.items("medchat_backbones", Backbone)
        with guarded(plugin.entry, "medchat_backbones"):
            named = [backbone for backbone in offered if backbone.name == name]
            if len(named) != 1:
                raise ContractError(_not_offered(plugin, name, len(named)))
        self._chosen.setdefault(plugin)
        return GuardedBackbone(named[0], plugin.entry)

    def call_each(
        self, question: Callable[[GuardedBackbone], Answer]
    ) -> Iterator[tuple[GuardedBackbone, Answer]]:
        """Ask every backbone that loads, and give those that answer; one that fails is in `failures`."""
        for backbone in self.backbones():
            try:
                with backbone.guard():
                    answer = question(backbone)
            except BrokenPluginError as error:
                self.note(error.failure)
            else:
                yield backbone, answer

    def backbones(self) -> tuple[GuardedBackbone, ...]:
        """Import every backbone plugin and return what works; the rest is in `failures`.

        For questions that no single backbone answers, such as whose folder this is.
        """
        found = []
        for name in self.names():
            try:
                found.append(self.backbone(name))
            except BrokenPluginError as error:
                self.note(error.failure)
        return tuple(found)

    def extensions(self) -> Extensions:
        """Import the hook-only plugins and return all that take part in hooks; the rest is in `failures`.

        The chosen backbones' plugins take part too, as they stand when a hook is called.
        """
        working = []
        for entry in self.entries:
            if entry.group == EXTENSIONS and (EXTENSIONS, entry.name) not in self._conflicts:
                try:
                    working.append(self._load(entry))
                except BrokenPluginError as error:
                    self.note(error.failure)
        return Extensions(working, self._chosen, self.note)

    def templates_of(self, name: str) -> tuple[PromptTemplate, ...]:
        """Return the templates that the plugin of backbone `name` offers; none where it fails.

        Unlike `backbone` it does not let the plugin take part in `extensions`.
        """
        try:
            offered = templates_of(self._load(self._entry(BACKBONES, name)))
            return tuple(template for template in offered if template.name)
        except BrokenPluginError as error:
            self.note(error.failure)
            return ()

    def command(self, name: str, kind: type[Command]) -> tuple[Command, PluginEntry]:
        """Import the plugin that offers `medchat NAME`; return that command, of class `kind`, and whose it is.

        Call it under `guarded`. Raises UsageError for a name nobody offers, PluginError if two offer it or
        the plugin fails.
        """
        plugin = self._load(self._entry(COMMANDS, name))
        offered = plugin.items("medchat_commands", kind)
        with guarded(plugin.entry, "medchat_commands"):
            for command in offered:
                if command.name == name:
                    return command, plugin.entry
            raise ContractError(say(f"没有提供命令 {name}", f"does not provide the command {name}"))

    def plugin(self, group: str, name: str) -> LoadedPlugin:
        """Import the plugin behind a name of the group, and return it as it was found. Raises as `backbone`."""
        return self._load(self._entry(group, name))

    def _entry(self, group: str, name: str) -> PluginEntry:
        claimants = [entry for entry in self.entries if (entry.group, entry.name) == (group, name)]
        if not claimants:
            raise self._unknown(group, name)
        if len(claimants) > 1:
            failure = _conflict(claimants)
            spare = next((entry for entry in claimants if entry.distribution != "medchat"), claimants[0])
            raise PluginError(
                failure.reason,
                say("卸载其中一个：", "remove one of them: ")
                + f"pip uninstall {sanitize_line(spare.distribution, 60)}",
            )
        return claimants[0]

    def _load(self, entry: PluginEntry) -> LoadedPlugin:
        key = (entry.distribution, entry.value)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_plugin(entry)
            return self._loaded[key]

    def note(self, found: PluginFailure | SharedModel) -> None:
        """Add to `lines` what was found, once."""
        self._noted.setdefault(found)

    def _unknown(self, group: str, name: str) -> UsageError:
        known = [entry.name for entry in self.entries if entry.group == group]
        shown = sanitize_line(name, 60)
        if any((entry.group, entry.name) == (group, name) for entry in self._installed):
            return UsageError(
                say(f"插件 {shown} 已安装，但未被允许使用", f"plugin {shown} is installed but not allowed"),
                say(
                    f"把 {shown} 加进 MEDCHAT_PLUGINS（或配置文件的 plugins）",
                    f"add {shown} to MEDCHAT_PLUGINS (or to plugins in config.toml)",
                ),
            )
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        names = ", ".join(sanitize_line(other, 60) for other in near or sorted(set(known)))
        hint = say("是不是想用：", "did you mean: ") if near else say("可用的有：", "there are: ")
        return UsageError(
            say(f"没有名为 {shown} 的模型家族", f"there is no backbone named {shown}")
            if group == BACKBONES
            else say(f"没有插件提供 {shown}", f"no plugin offers {shown}"),
            f"{hint}{names}" if names else "medchat plugins list",
        )


def _conflict(claimants: list[PluginEntry]) -> PluginFailure:
    who = [sanitize_line(f"{entry.distribution} {entry.version}".strip(), 60) for entry in claimants]
    name = sanitize_line(claimants[0].name, 60)
    return PluginFailure(
        ", ".join(entry.distribution for entry in claimants),
        claimants[0].name,
        say(
            f"名称 {name} 同时被 {'、'.join(who)} 占用", f"the name {name} is claimed by {' and '.join(who)}"
        ),
    )


def _not_offered(plugin: LoadedPlugin, name: str, times: int) -> str:
    if times:
        return say(f"提供了 {times} 个名为 {name} 的模型家族", f"offers {times} backbones named {name}")
    marked = plugin.manager.hook.medchat_backbones.get_hookimpls()
    if not marked and callable(getattr(plugin.plugin, "medchat_backbones", None)):
        return say("函数前缺少 @hookimpl", "the function lacks @hookimpl")
    return say(f"没有提供名为 {name} 的模型家族", f"offers no backbone named {name}")
