"""Answering the questions of a plan, whatever single ones of them do to the model.

Out of memory halves the batch and continues. Anything else that fails is narrowed down to the question it
belongs to, which gets a line that says so; three questions failing one after the other end the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medchat.api import ChatModel, Completion, GenerationConfig, Notice
from medchat.batch.prompts import PromptMaker, QuestionPrompt, RejectedQuestion
from medchat.batch.questions import Question
from medchat.batch.rows import Provenance, answer_row, failure_row
from medchat.batch.work import Window, WorkPlan
from medchat.datafiles.record import QuestionRecord
from medchat.errors import MemoryShortageError

#: How many questions failing in a row, each alone in its batch, are treated as a failure of the model.
FAILURES_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """Lines that are ready to be stored, and what they cost. `failed` holds what has no answer, and why."""

    rows: tuple[Mapping[str, Any], ...]
    tokens: int = 0
    failed: tuple[tuple[Question, Exception], ...] = ()


@dataclass(frozen=True, slots=True)
class BatchHalved:
    """Memory ran out; from here on at most `rows` prompts go together."""

    rows: int


Event = AnsweredBatch | BatchHalved


@dataclass
class Answering:
    """One process's share of a plan. Iterate `run`; each Step must be stored before the next is asked for.

    `advise` looks at the user's words before the model does. `done` are the questions to leave out.
    """

    model: ChatModel
    maker: PromptMaker
    config: GenerationConfig
    plan: WorkPlan
    provenance: Provenance
    rank: int = 0
    done: frozenset[int] = frozenset()
    advise: Callable[[QuestionRecord], Sequence[Notice]] = lambda asked: ()
    _limit: int = field(default=0)
    _failures: int = field(default=0)

    def run(self) -> Iterator[Event]:
        """Yield the lines of this process's questions. Raises what the model raises if it keeps failing."""
        self._limit = self.plan.rows
        for window in self.plan.windows():
            if any(question.index not in self.done for question in window.questions):
                yield from self._window(window)

    def _window(self, window: Window) -> Iterator[Event]:
        made = [self.maker.make(question) for question in window.questions]
        batches = self.plan.batches([prompt for prompt in made if isinstance(prompt, QuestionPrompt)])
        refused = [refusal for refusal in made if isinstance(refusal, RejectedQuestion)]
        if self.plan.rank_of(window, 0) == self.rank:
            missing = [refusal for refusal in refused if refusal.question.index not in self.done]
            if missing:
                yield self._failed((refusal.question, refusal.error) for refusal in missing)
        for number, batch in enumerate(batches):
            if self.plan.rank_of(window, number) == self.rank:
                left = tuple(prompt for prompt in batch if prompt.question.index not in self.done)
                if left:
                    yield from self._batch(left)

    def _batch(self, batch: tuple[QuestionPrompt, ...]) -> Iterator[Event]:
        waiting = deque([batch])
        while waiting:
            chunk = waiting.popleft()
            if len(chunk) > self._limit:
                waiting.extendleft(reversed(_cut(chunk, self._limit)))
                continue
            started = time.perf_counter()
            completions, failure = self._generate(chunk)
            if failure is None:
                self._failures = 0
                yield self._answered(chunk, completions, time.perf_counter() - started)
                continue
            self._failures += len(chunk) == 1
            if self._failures == FAILURES_IN_A_ROW:
                raise failure
            _forget_frames(failure)
            if len(chunk) == 1:
                yield self._failed([(chunk[0].question, failure)])
                continue
            half = (len(chunk) + 1) // 2
            if isinstance(failure, MemoryShortageError):
                self._limit = half
                yield BatchHalved(half)
            waiting.extendleft(reversed(_cut(chunk, half)))

    def _generate(self, chunk: Sequence[QuestionPrompt]) -> tuple[list[Completion], Exception | None]:
        try:
            completions = self.model.generate_batch([prompt.segments for prompt in chunk], self.config)
        except Exception as error:
            return [], error
        return completions, None

    def _answered(
        self, chunk: Sequence[QuestionPrompt], completions: Sequence[Completion], seconds: float
    ) -> AnsweredBatch:
        share = seconds / len(chunk)
        rows = [
            answer_row(prompt, completion, share, self.provenance, self.advise(prompt.question.asked))
            for prompt, completion in zip(chunk, completions, strict=True)
        ]
        return AnsweredBatch(tuple(rows), sum(completion.completion_tokens for completion in completions))

    def _failed(self, failures: Iterable[tuple[Question, Exception]]) -> AnsweredBatch:
        pairs = tuple(failures)
        rows = [
            failure_row(question, error, self.provenance, self.advise(question.asked))
            for question, error in pairs
        ]
        return AnsweredBatch(tuple(rows), failed=pairs)


def _forget_frames(failure: BaseException | None) -> None:
    """Let go of what the failed call still holds: its frames own the tensors that filled the memory."""
    while failure is not None:
        failure.__traceback__ = None
        failure = failure.__cause__ or failure.__context__


def _cut(chunk: tuple[QuestionPrompt, ...], size: int) -> list[tuple[QuestionPrompt, ...]]:
    return [chunk[start : start + size] for start in range(0, len(chunk), size)]
