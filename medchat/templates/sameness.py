"""Whether two templates ask the same of a model."""

from __future__ import annotations

from medchat.api import PromptTemplate, Turn
from medchat.errors import UsageError
from medchat.templates.with_input import takes_dialogues, with_input

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
