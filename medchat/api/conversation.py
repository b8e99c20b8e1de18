"""What is said: turns, conversations, and what a plugin may add around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Finish(StrEnum):
    """Why an answer ended."""

    #: An end token, or a stop text.
    STOP = "stop"
    #: `max_new_tokens` or the context was used up.
    LENGTH = "length"
    #: The user stopped it; the text is what had come.
    CANCELLED = "cancelled"
    #: The backbone failed part-way; the text is what had come.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer. Texts are exactly what the user typed and the model wrote."""

    question: str
    answer: str
    finish: Finish = Finish.STOP


@dataclass(frozen=True, slots=True)
class Conversation:
    """What has been said so far. Immutable: `with_turn` returns a new one."""

    turns: tuple[Turn, ...] = ()
    system: str = ""

    def with_turn(self, turn: Turn) -> Conversation:
        """Return this conversation with `turn` at its end."""
        return replace(self, turns=(*self.turns, turn))

    def without_last(self, count: int = 1) -> Conversation:
        """Return this conversation without its last `count` turns."""
        return replace(self, turns=self.turns[: max(0, len(self.turns) - count)])


@dataclass(frozen=True, slots=True)
class Notice:
    """Something shown to the user before an answer. Plugins may add notices, never remove one.

    `text` is in the interface language; `urgent` ones need help now and are shown first. `key` names what the
    notice is about and stays the same from version to version ("" if a plugin gives none). `vital` ones
    concern a life at risk this minute. `short` is one line to show in place of `text` where the same `key`
    was shown before in this conversation; "" means that the text is shown again.
    """

    text: str
    urgent: bool = False
    key: str = ""
    vital: bool = False
    short: str = ""


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A command typed at the prompt as `/name` or `/zh_name`.

    `run` takes the conversation and the words after the command and returns the text to show. It is called in a
    thread of its own: where it takes too long, Ctrl-C leaves it, and what it returns later is not shown.
    `plugin` is filled in by the program: the distribution that the command comes from.
    """

    name: str
    zh_name: str
    summary: Mapping[str, str]
    run: Callable[[Conversation, str], str]
    plugin: str = ""
