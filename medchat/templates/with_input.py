"""How a record of data becomes a prompt: with its `input`, and as the dialogue it may already be; and which two
templates make the same.

Batch inference asks and fine-tuning learns through this one place, so both see the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medchat.api import PromptTemplate, Segment, Turn
from medchat.errors import UsageError
from medchat.templates.json_template import JsonTemplate


def with_input(template: PromptTemplate, text: str) -> PromptTemplate:
    """Return `template` for a record whose `input` is `text`: itself where that is empty."""
    return _WithInput(template, text) if text else template


def takes_dialogues(template: PromptTemplate) -> bool:
    """Whether weights of this template were trained on whole dialogues as one text, each as its data holds it."""
    return isinstance(template, JsonTemplate) and template.multi_turn


def ignores_input(template: PromptTemplate) -> bool:
    """Whether the template has a form for records with an `input` that leaves the input out."""
    if not isinstance(template, JsonTemplate):
        return False
    return template.render_with_input("?", "1") == template.render_with_input("?", "2")


@dataclass(frozen=True, slots=True)
class _WithInput:
    """A template that also puts in the record's `input`: by its own form for that, or on a line of its own."""

    template: PromptTemplate
    input: str

    @property
    def name(self) -> str:
        return self.template.name

    @property
    def stop(self) -> tuple[str, ...]:
        return self.template.stop

    @property
    def multi_turn(self) -> bool:
        return self.template.multi_turn

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        if isinstance(self.template, JsonTemplate) and not turns and not system:
            return self.template.render_with_input(question, self.input)
        return self.template.render(turns, f"{question}\n{self.input}", system)


#: Two templates are one if they ask these alike: (turns, question, system).
_ASKED = (((), "?", ""), ((Turn("?", "!"),), "??", ""), ((), "?", "."))


def same_template(one: PromptTemplate, other: PromptTemplate) -> bool:
    """Return whether both make the same prompts: of questions, dialogues and records with an `input`."""
    if (one.stop, takes_dialogues(one)) != (other.stop, takes_dialogues(other)):
        return False
    return all(_asks(one, asked) == _asks(other, asked) for asked in _ASKED)


def _asks(template: PromptTemplate, asked: tuple[tuple[Turn, ...], str, str]) -> object:
    """What the template makes of it, with and without an `input`; or that it refuses."""
    made = []
    for form in (template, with_input(template, "#")):
        try:
            made.append(form.render(*asked))
        except UsageError:
            # A template for single turns, or one without a place for a system text.
            made.append(())
    return made
