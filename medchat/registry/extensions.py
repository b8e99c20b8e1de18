"""Calling hooks: every plugin under its own guard, one that fails never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from medchat.api import Conversation, Notice, PromptTemplate, SFTRecipe, SlashCommand, Turn
from medchat.hookspecs import Finding
from medchat.registry.contract import require
from medchat.registry.guarded_recipe import GuardedRecipe
from medchat.registry.guarded_template import guarded_template
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import BrokenPluginError, LoadedPlugin, PluginFailure, asked, guarded


class Extensions:
    """The plugins that take part in hooks, in the order they were found. Made by `Registry.extensions`.

    A plugin that fails, or returns something of the wrong kind, adds nothing; it is noted once in
    `Registry.failures` and asked again next time.
    """

    def __init__(
        self,
        plugins: Sequence[LoadedPlugin],
        chosen: Collection[LoadedPlugin],
        note: Callable[[PluginFailure], None],
    ) -> None:
        self._plugins = plugins
        self._chosen = chosen
        self._note = note

    def advise(self, conversation: Conversation, text: str) -> tuple[Notice, ...]:
        """Return the plugins' notices about `text`, typed after `conversation`."""
        return tuple(self._gather("medchat_advise", Notice, conversation=conversation, text=text))

    def turn_saved(self, conversation: Conversation, turn: Turn) -> None:
        """Tell the plugins that `turn` is complete."""
        for plugin in self._taking_part():
            self._guarded(plugin.call, "medchat_turn_saved", {"conversation": conversation, "turn": turn})

    def templates(self) -> tuple[PromptTemplate, ...]:
        """Return the plugins' prompt templates."""
        found: list[PromptTemplate] = []
        for plugin in self._taking_part():
            found += self._guarded(templates_of, plugin)
        return tuple(found)

    def slash_commands(self) -> tuple[SlashCommand, ...]:
        """Return the plugins' commands for the prompt; what one raises as it runs is a BrokenPluginError."""
        found: list[SlashCommand] = []
        for plugin in self._taking_part():
            made = self._guarded(plugin.items, "medchat_slash_commands", SlashCommand)
            found += [guarded_command(command, plugin.entry) for command in made]
        return tuple(found)

    def sft_recipes(self, backbone: str) -> tuple[SFTRecipe, ...]:
        """Return the plugins' fine-tuning recipes for that backbone."""
        recipes: list[SFTRecipe] = []
        for plugin in self._taking_part():
            recipes += self._guarded(_recipes_of, plugin, backbone)
        return tuple(recipes)

    def doctor(self, settings: Mapping[str, object]) -> tuple[Finding, ...]:
        """Return the plugins' findings for `medchat doctor`."""
        return tuple(self._gather("medchat_doctor", Finding, settings=MappingProxyType(dict(settings))))

    def _taking_part(self) -> list[LoadedPlugin]:
        return list(dict.fromkeys([*self._plugins, *self._chosen]))

    def _gather(self, hook: str, kind: type | None = None, **arguments: object) -> list[Any]:
        found: list[Any] = []
        for plugin in self._taking_part():
            found += self._guarded(plugin.items, hook, kind, **arguments)
        return found

    def _guarded(self, call: Callable[..., list[Any]], *arguments: Any, **named: Any) -> list[Any]:
        try:
            return call(*arguments, **named)
        except BrokenPluginError as error:
            self._note(error.failure)
            return []


def templates_of(plugin: LoadedPlugin) -> list[PromptTemplate]:
    """Return the templates that the plugin's hook offers. Raises BrokenPluginError."""
    hook = "medchat_templates"
    return [guarded_template(template, plugin.entry, hook) for template in plugin.items(hook)]


def _recipes_of(plugin: LoadedPlugin, backbone: str) -> list[SFTRecipe]:
    hook = "medchat_sft_recipes"
    found: list[SFTRecipe] = []
    for result in plugin.call(hook, {}):
        with guarded(plugin.entry, hook):
            found += require(result, Mapping[str, Sequence[SFTRecipe]]).get(backbone, ())
    return [GuardedRecipe(recipe, plugin.entry) for recipe in found]


def guarded_command(command: SlashCommand, entry: PluginEntry) -> SlashCommand:
    """Return the command of the plugin behind `entry`; what it raises as it runs is a BrokenPluginError."""

    def run(conversation: Conversation, words: str) -> str:
        return asked(entry, f"/{command.name}", lambda: command.run(conversation, words), str)

    return replace(command, run=run, plugin=entry.distribution)
