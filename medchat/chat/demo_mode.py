"""What goes with the demo's miniature wherever it is loaded: it knows its own questions, each by itself, and no others.

Bound to the checkpoint, not to `medchat demo`: going on with `chat -c`, or asking it with `ask --model`,
must not lose the warning.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from medchat import paths
from medchat.api import Conversation, Notice, PromptTemplate, Segment, SlashCommand, Turn
from medchat.demo_data import DemoPair
from medchat.language import say

#: The file that marks a miniature. A copy of the folder takes it along.
MARK = "medchat_demo.json"


def demo_folder() -> Path:
    """Return the folder that holds the trained miniatures."""
    return paths.cache_dir() / "demo"


def mark_as_demo(model: Path) -> None:
    """Write into the folder that it holds the demo's miniature. Its last file: without it training did not end."""
    (model / MARK).write_text("{}\n", encoding="utf-8")


def is_demo(model: Path) -> bool:
    """Whether `model` is a miniature that `medchat demo` trained, wherever it was copied to."""
    return (model / MARK).is_file()


class KnownQuestions:
    """The questions that the miniature has learned. Punctuation, width and case of what is typed do not count."""

    def __init__(self, pairs: Sequence[DemoPair]) -> None:
        self._questions = tuple(pair.question for pair in pairs)
        self._by_form = {_form(question): question for question in self._questions}

    def learned(self, question: str) -> str | None:
        """Return the question as it was learned, or None if it was not."""
        return self._by_form.get(_form(question))

    def advise(self, conversation: Conversation, question: str) -> list[Notice]:
        """Return a notice unless `question` was learned."""
        if self.learned(question) is not None:
            return []
        near = difflib.get_close_matches(_form(question), list(self._by_form), n=2, cutoff=0.4)
        text = say(
            "这不是演示模型学过的问题，下面的回答没有意义。",
            "This is not one of the demo's own questions: the answer below means nothing.",
        )
        if near:
            asked = " / ".join(self._by_form[form] for form in near)
            text += say(f"它学过：{asked}", f" It has learned: {asked}")
        return [Notice(text)]

    def slash_command(self) -> SlashCommand:
        """Return `/questions`, which lists what can be asked, or what of it holds the words given."""

        def listed(conversation: Conversation, words: str) -> str:
            found = [question for question in self._questions if words.strip() in question]
            return "\n".join(found) or say("没有包含这些字的问题", "no question holds these words")

        summary = {"zh": "列出演示模型学过的问题", "en": "list the questions the demo has learned"}
        return SlashCommand("questions", "题目", summary, listed)


class LearnedAlone:
    """The miniature's template: each question as it was learned, without the turns before it.

    It saw every pair alone and letter by letter; with a turn in front, or another question mark, a question
    is one it has never seen.
    """

    def __init__(self, inner: PromptTemplate, known: KnownQuestions) -> None:
        self._inner = inner
        self._known = known

    @property
    def name(self) -> str:
        """The name of the template itself."""
        return self._inner.name

    @property
    def stop(self) -> tuple[str, ...]:
        """The template's own stop texts."""
        return self._inner.stop

    @property
    def multi_turn(self) -> bool:
        """Nothing to remark on: earlier turns are never sent."""
        return True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for the question alone, as it was learned where it was."""
        return self._inner.render((), self._known.learned(question) or question)


def _form(question: str) -> str:
    """What of a question counts: its letters, digits and ideographs."""
    return "".join(
        character for character in unicodedata.normalize("NFKC", question).casefold() if character.isalnum()
    )
