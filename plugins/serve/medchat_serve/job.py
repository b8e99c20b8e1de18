"""One question on its way through the queue and the model: what happens to it, as a stream that a coroutine reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from medchat.plugin_kit import (
    Advice,
    AnswerFinished,
    AnswerPiece,
    AnswerRestarted,
    AnswerReviewed,
    Conversation,
    HistoryDropped,
    Notice,
    OpenedModel,
    ReasoningPiece,
    SavedConversations,
    Segment,
    Text,
    Turn,
)
from medchat_serve.asked_question import AskedQuestion


@dataclass(frozen=True, slots=True)
class Queued:
    """How many are answered before this one."""

    before: int


@dataclass(frozen=True, slots=True)
class JobEnded:
    """Nothing more comes. `error` is what went wrong, None if nothing did."""

    error: BaseException | None = None


SessionEvent = (
    Advice | HistoryDropped | ReasoningPiece | AnswerPiece | AnswerRestarted | AnswerReviewed | AnswerFinished
)
JobEvent = Queued | SessionEvent | JobEnded


class PlainText:
    """The template of a text completion: the prompt is the text, and nothing around it."""

    name = "plain"
    stop: tuple[str, ...] = ()
    multi_turn = False

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the text as it is."""
        return (Text(question),)


class AnswerJob:
    """A question, its events and the wish to stop it. Made in the event loop that reads its events."""

    def __init__(
        self, request: AskedQuestion, conversation: Conversation, said: Sequence[Notice] = ()
    ) -> None:
        """`conversation` is what was said before, `said` what the client is told before the model is asked."""
        self.request = request
        self.conversation = conversation
        self.said = tuple(said)
        self.cancel = threading.Event()
        self._events: asyncio.Queue[JobEvent] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def tell(self, event: JobEvent) -> None:
        """Add an event, from any thread. One of a loop that has ended is for nobody."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next_event(self) -> JobEvent:
        """Wait for the next event and return it."""
        return await self._events.get()

    def run(
        self, opened: OpenedModel, saved: SavedConversations | None = None, *, in_batch: bool = False
    ) -> Iterator[None]:
        """Have the model answer, in the thread that the model is used in; yield after each piece.

        Raises nothing: what goes wrong is told. The turn goes into `saved`, if given and a person asked. `in_batch`:
        other jobs are run between the pieces, and the model computes them together.
        """
        try:
            if not self.cancel.is_set():
                yield from self._answer(opened, saved, in_batch)
            self.tell(JobEnded())
        except Exception as error:
            self.tell(JobEnded(error))

    def _answer(
        self, opened: OpenedModel, saved: SavedConversations | None, in_batch: bool
    ) -> Iterator[None]:
        if self.request.plain or self.request.background:
            saved = None
        session = (saved or opened).chat(self.conversation)
        if self.request.plain:
            session.template = PlainText()
            session.conversation = replace(session.conversation, system="")
        try:
            session.config = self.request.config_over(session.config)
            session.said_early.update(notice.text for notice in self.said)
            for event in session.ask(self.request.question, self.cancel, in_batch=in_batch):
                if isinstance(event, SessionEvent):
                    self.tell(event)
                yield
        finally:
            if saved is not None:
                saved.remember(session)
