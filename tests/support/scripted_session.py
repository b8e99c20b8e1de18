"""A session with a scripted model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from medchat.api import (
    ChatModel,
    Completion,
    Conversation,
    Delta,
    Finish,
    GenerationConfig,
    Segment,
    Text,
    Turn,
)
from medchat.chat.collaborators import NoRecorder
from medchat.chat.events import Event, TurnStats
from medchat.chat.session import ChatSession


@dataclass(frozen=True)
class Form:
    """A template of one segment a turn."""

    stop: tuple[str, ...] = ()
    multi_turn: bool = True
    name: str = "form"

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        asked = [Text(turn.question + turn.answer) for turn in turns]
        return (*([Text(system)] if system else []), *asked, Text(question))


@dataclass
class ScriptedModel:
    """Says its pieces, one character a token; keeps what it was sent. `then` runs after the last piece.

    `stopped` is its finish reason when cancelled, `finish` that of a normal end.
    """

    pieces: Sequence[str] = ("多", "喝水")
    context_length: int = 1000
    then: Callable[[], None] | None = None
    stopped: Finish = Finish.CANCELLED
    finish: Finish = Finish.STOP
    sent: list[tuple[tuple[str, ...], GenerationConfig]] = field(default_factory=list)

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        self.sent.append((tuple(text_of(segment) for segment in segments), config))
        prompt, said = self.count(segments), 0
        for piece in self.pieces:
            if cancel.is_set():
                break
            said += len(piece)
            yield Delta(piece, said, prompt)
        if self.then is not None:
            self.then()
        yield Delta("", said, prompt, 3, self.stopped if cancel.is_set() else self.finish)

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        raise AssertionError("a conversation streams its answers one by one")

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        raise AssertionError("a conversation scores no answers")

    def count(self, segments: Sequence[Segment]) -> int:
        return sum(len(text_of(segment)) for segment in segments)

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def text_of(segment: Segment) -> str:
    assert isinstance(segment, Text)
    return segment.text


class ScriptedContinuer(ScriptedModel):
    """A scripted model that can also continue with an answer, by its script too."""

    def go_on(
        self, segments: Sequence[Segment], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        yield from self.stream((*segments, Text(answer)), config, cancel)


@dataclass
class Journal(NoRecorder):
    """A recorder that keeps its calls, in order."""

    entries: list[tuple[str, object]] = field(default_factory=list)

    def save(self, turn: Turn, stats: TurnStats, context: object, *, instead_of: int = 0) -> None:
        self.entries.append(("replace" if instead_of else "save", turn))

    def extend(self, turn: Turn, stats: TurnStats, context: object) -> None:
        self.entries.append(("extend", turn))

    def rewrite(self, change: Callable[[str], str]) -> None:
        self.entries.append(("rewrite", change))

    def undo(self, count: int) -> None:
        self.entries.append(("undo", count))


def session_of(model: ChatModel | None = None, **changes: Any) -> ChatSession:
    """Return a session with a scripted model, the whole history sent and 100 tokens of answer."""
    template = changes.pop("template", Form())
    config = changes.pop("config", GenerationConfig(max_new_tokens=100))
    return ChatSession(model or ScriptedModel(), template, config, **changes)


def ask(session: ChatSession, question: str = "头痛？") -> list[Event]:
    return list(session.ask(question, threading.Event()))


def kinds(events: Sequence[Event]) -> list[type]:
    return [type(event) for event in events]


def told(turns: int, length: int) -> Conversation:
    return Conversation(tuple(Turn(f"{number:02d}", "答" * (length - 2)) for number in range(turns)))
