"""A prompt template of a plugin behind the guard."""

from __future__ import annotations

from collections.abc import Sequence

from medchat.api import PromptTemplate, Segment, Turn
from medchat.registry.contract import mismatch
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import asked, guarded

_OURS = "medchat.templates."


class GuardedTemplate:
    """The template `inner` of the plugin behind `entry`.

    Raises BrokenPluginError for what is against `PromptTemplate`.
    """

    def __init__(self, inner: PromptTemplate, entry: PluginEntry) -> None:
        self.inner, self._entry = inner, entry
        self.name = asked(entry, "template.name", lambda: inner.name, str)
        self.stop = tuple(asked(entry, "template.stop", lambda: inner.stop, tuple[str, ...]))
        self.multi_turn = asked(entry, "template.multi_turn", lambda: inner.multi_turn, bool)

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """See `PromptTemplate`."""
        return tuple(
            asked(
                self._entry,
                "template.render",
                lambda: self.inner.render(turns, question, system),
                tuple[Segment, ...],
            )
        )


def guarded_template(template: PromptTemplate, entry: PluginEntry, where: str) -> PromptTemplate:
    """Return what the plugin gave in `where` behind its guard; one of our own classes needs none.

    Raises BrokenPluginError where it is no template.
    """
    if type(template).__module__.startswith(_OURS):
        return template
    with guarded(entry, where):
        if not callable(getattr(template, "render", None)):
            raise mismatch("PromptTemplate", template)
    return GuardedTemplate(template, entry)


def given_template(template: PromptTemplate | None) -> PromptTemplate | None:
    """Return the template as its plugin knows it."""
    return template.inner if isinstance(template, GuardedTemplate) else template
