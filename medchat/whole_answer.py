"""An answer as a command gets it, whole, and what answers took in tokens and money."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medchat.api import Finish, Notice
from medchat.chat.events import Advice, AnswerFinished, AnswerReviewed, Event

#: Prices are stated for so many tokens.
_PRICED = 1_000_000


@dataclass
class TokenCount:
    """What the answers so far took. `cost` is None if the model states no prices; `currency` is theirs.

    `estimated`: some counts are guesses, because whoever computed the answers did not tell them.
    """

    #: Of all prompts, in tokens.
    prompt_tokens: int = 0
    #: Of all answers, in tokens.
    completion_tokens: int = 0
    #: Whether some of the counts are guesses.
    estimated: bool = False
    #: What they cost by the stated prices, None if there are none.
    cost: float | None = None
    #: What `cost` is in, "" if there is none.
    currency: str = ""
    _prices: Mapping[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, prompt_tokens: int, completion_tokens: int, *, estimated: bool = False) -> None:
        """Count one answer. May be called from several threads."""
        with self._lock:
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
            self.estimated = self.estimated or estimated
            if self._prices:
                self.currency = str(self._prices["currency"])
                self.cost = cost_of(self._prices, self.prompt_tokens, self.completion_tokens)


def cost_of(prices: Mapping[str, Any], prompt_tokens: int, completion_tokens: int) -> float:
    """Return what the tokens cost by prices in the form of `ChatModel.describe`."""
    whole: float = prompt_tokens * prices["prompt"] + completion_tokens * prices["completion"]
    return whole / _PRICED


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole.

    `text` is raw: it goes through `sanitize` or JSON before a terminal sees it. `notices` are those
    before the answer (red flags, plugins' advice), then those of its review. `reasoning` is what the model
    wrote before the answer, `rejected` the settings that a server did not take, `seconds` the time it took.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    notices: tuple[Notice, ...] = ()
    estimated: bool = False
    reasoning: str = ""
    rejected: tuple[str, ...] = ()


def whole_answer(events: Iterable[Event]) -> Generator[None, None, Answer]:
    """Yield after each event of an answer that the chat engine gives, and return the answer at the end.

    One that was stopped before its first word is empty. Raises what the events raise.
    """
    notices: list[Notice] = []
    ended: AnswerFinished | None = None
    for event in events:
        if isinstance(event, Advice | AnswerReviewed):
            notices.append(event.notice)
        elif isinstance(event, AnswerFinished):
            ended = event
        yield
    if ended is None:
        return Answer("", Finish.CANCELLED, 0, 0, 0.0, tuple(notices))
    turn, stats = ended.turn, ended.stats
    return Answer(
        turn.answer,
        turn.finish,
        stats.prompt_tokens,
        stats.completion_tokens,
        stats.seconds,
        tuple(notices),
        stats.estimated,
        ended.reasoning,
        ended.rejected,
    )
