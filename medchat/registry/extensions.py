"""Calling hooks: every plugin under its own guard, one that fails never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from medchat.api import Conversation, Notice, PromptTemplate, SFTRecipe, SlashCommand, Turn
from medchat.hookspecs import Finding
from medchat.registry.plugin import BrokenPluginError, ContractError, LoadedPlugin, PluginFailure, guarded


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
        return tuple(self._gather("medchat_templates"))

    def slash_commands(self) -> tuple[SlashCommand, ...]:
        """Return the plugins' commands for the prompt."""
        return tuple(self._gather("medchat_slash_commands", SlashCommand))

    def sft_recipes(self, backbone: str) -> tuple[SFTRecipe, ...]:
        """Return the plugins' fine-tuning recipes for that backbone."""
        recipes: list[SFTRecipe] = []
        for plugin in self._taking_part():
            recipes += self._guarded(_recipes_of, plugin, backbone)
        return tuple(recipes)

    def doctor(self, settings: Mapping[str, object]) -> tuple[Finding, ...]:
        """Return the plugins' findings for `medchat doctor`."""
        return tuple(self._gather("medchat_doctor", Finding, settings=settings))

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


def _recipes_of(plugin: LoadedPlugin, backbone: str) -> list[SFTRecipe]:
    hook = "medchat_sft_recipes"
    recipes: list[SFTRecipe] = []
    for result in plugin.call(hook, {}):
        with guarded(plugin.entry, hook):
            if not isinstance(result, Mapping):
                raise ContractError(f"{type(result).__name__} != Mapping")
            recipes += result.get(backbone, ())
    return recipes
