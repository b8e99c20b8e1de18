"""Several answers of one model that take their tokens together, each with its own configuration and its own end.

An answer joins with its prompt, which is read alone, and leaves where it ends; whichever of them needs its next token
makes all take theirs. Each has its own chooser with its own generator, so that it is what it would be alone. Used in
one thread. Knows no text.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from medchat.api import Finish, GenerationConfig
from medchat.inference.answer_deltas import DecodeStep, answer_room
from medchat.inference.decode import GenerationLimits
from medchat.inference.interrupt import GenerationCancelled
from medchat.inference.sampling import Logits, TokenChooser

Row = TypeVar("Row")
#: An answer waits for its reader with so many tokens; the others go on without it meanwhile.
_MOST_AHEAD = 16


class Rows(Protocol[Row]):
    """Token sequences in one model, each with its keys and values."""

    def begin(self, ids: Sequence[int], cancel: threading.Event) -> tuple[Row, Logits, int]:
        """Read a prompt alone. Returns its sequence, the logits [V] of what follows and how many tokens were kept.

        Raises GenerationCancelled once `cancel` is set.
        """
        ...

    def advance(self, rows: Sequence[Row], tokens: Sequence[int]) -> Iterable[Logits]:
        """Append one token to each. Returns the logits [B, V] of what follows."""
        ...

    def end(self, row: Row) -> None:
        """Nothing more is appended to `row`; what it holds may serve the next prompt."""
        ...

    def forget(self) -> None:
        """Drop everything that is held, after a failure."""
        ...


@dataclass(slots=True, eq=False)
class JointAnswer(Generic[Row]):
    """One of the answers. `finish` is None while it goes on; `error` is what ended it where something failed."""

    chooser: TokenChooser
    room: int
    cancel: threading.Event
    owner: JointAnswers[Row]
    row: Row | None = None
    tokens: list[int] = field(default_factory=list)
    #: How many of them `steps` has given.
    given: int = 0
    finish: Finish | None = None
    error: BaseException | None = None
    #: How many tokens of the prompt were still in a cache.
    reused_tokens: int = 0

    def take(self, logits: Logits, stop_ids: Collection[int]) -> None:
        """Choose the next token by `logits` [V]. What the choice raises ends this answer alone."""
        try:
            token = self.chooser.choose(logits)
        except Exception as error:
            self.error = error
            return
        if token in stop_ids:
            self.finish = Finish.STOP
            return
        self.tokens.append(token)
        if len(self.tokens) == self.room:
            self.finish = Finish.LENGTH

    @property
    def has_ended(self) -> bool:
        """Whether it takes no more tokens."""
        return self.finish is not None or self.error is not None

    def steps(self) -> Iterator[DecodeStep]:
        """Yield the tokens as they come, then why the answer ended. Raises what failed."""
        while True:
            if self.cancel.is_set():
                self.finish = Finish.CANCELLED
            elif self.given < len(self.tokens):
                self.given += 1
                yield DecodeStep(token=self.tokens[self.given - 1])
                continue
            if self.error is not None:
                raise self.error
            if self.finish is not None:
                yield DecodeStep(finish=self.finish)
                return
            self.owner.advance(_MOST_AHEAD)

    def close(self) -> None:
        """Leave the others, whether the answer has ended or not."""
        self.finish = self.finish or Finish.CANCELLED
        self.owner.release_ended()


class JointAnswers(Generic[Row]):
    """The answers of one model that are under way."""

    def __init__(self, rows: Rows[Row], limits: GenerationLimits) -> None:
        self._rows, self._limits = rows, limits
        self._going: list[JointAnswer[Row]] = []

    def begin(
        self, ids: Sequence[int], config: GenerationConfig, cancel: threading.Event
    ) -> JointAnswer[Row]:
        """Read the prompt `ids` and choose the first token; the others wait meanwhile.

        Raises UsageError for a prompt that fills the context, MedchatError on non-finite logits.
        """
        room = answer_room(len(ids), config, self._limits.context_length)
        chooser = TokenChooser(config, ids, self._limits.token_count)
        answer = JointAnswer(chooser, room, cancel, self)
        try:
            if cancel.is_set():
                raise GenerationCancelled
            answer.row, logits, answer.reused_tokens = self._rows.begin(ids, cancel)
        except GenerationCancelled:
            answer.finish = Finish.CANCELLED
            return answer
        self._going.append(answer)
        answer.take(logits, self._limits.stop_ids)
        self.release_ended()
        return answer

    def advance(self, most_ahead: int | None = None) -> bool:
        """Let all that go on take one token each; return whether any did. Those that were cancelled end instead.

        One whose reader is `most_ahead` tokens behind takes none. Where the model fails, all end with its error,
        which is raised.
        """
        for answer in self._going:
            if answer.cancel.is_set():
                answer.finish = answer.finish or Finish.CANCELLED
        self.release_ended()
        going = [
            answer
            for answer in self._going
            if most_ahead is None or len(answer.tokens) - answer.given < most_ahead
        ]
        if not going:
            return False
        rows = [answer.row for answer in going if answer.row is not None]
        try:
            logits = self._rows.advance(rows, [answer.tokens[-1] for answer in going])
        except BaseException as error:
            for answer in self._going:
                answer.error, answer.row = error, None
            self._going.clear()
            self._rows.forget()
            raise
        for answer, row in zip(going, logits, strict=True):
            answer.take(row, self._limits.stop_ids)
        self.release_ended()
        return True

    def release_ended(self) -> None:
        """Let go of the sequences of answers that have ended."""
        ended = [answer for answer in self._going if answer.has_ended]
        self._going = [answer for answer in self._going if not answer.has_ended]
        for answer in ended:
            if answer.row is not None:
                self._rows.end(answer.row)
                answer.row = None
