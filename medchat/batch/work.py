"""In which order questions are answered, in which batches, and by which of several processes.

Questions are taken in windows of consecutive ones; a window's prompts are sorted by length, so that a batch
holds prompts of about one length, and cut into batches. All of that depends on the whole file and never on
what is already answered, so a run that continues after a kill computes the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medchat.batch.prompts import QuestionPrompt
from medchat.batch.questions import Question

#: Batches in a window: enough to sort by length, few enough that answers come roughly in order.
WINDOW_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive questions that are answered together."""

    number: int
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """How `questions` are cut into windows and batches for `world_size` processes."""

    questions: tuple[Question, ...]
    batch_size: int
    world_size: int = 1

    @property
    def rows(self) -> int:
        """The prompts of a batch: `batch_size`, or fewer where some process would have nothing to do."""
        return max(1, min(self.batch_size, -(-len(self.questions) // self.world_size)))

    def windows(self) -> Iterator[Window]:
        """Yield the windows in the file's order."""
        size = self.rows * WINDOW_BATCHES
        for number, start in enumerate(range(0, len(self.questions), size)):
            yield Window(number, self.questions[start : start + size])

    def batches(self, prompts: Sequence[QuestionPrompt]) -> list[tuple[QuestionPrompt, ...]]:
        """Cut a window's prompts into batches, the longest prompts first."""
        ordered = sorted(prompts, key=lambda prompt: (-prompt.tokens, prompt.question.index))
        return [tuple(ordered[start : start + self.rows]) for start in range(0, len(ordered), self.rows)]

    def share(self, rank: int) -> int:
        """Return how many of the questions fall to that process, if none is refused."""
        return sum(
            len(window.questions[start : start + self.rows])
            for window in self.windows()
            for batch, start in enumerate(range(0, len(window.questions), self.rows))
            if self.rank_of(window, batch) == rank
        )

    def rank_of(self, window: Window, batch: int) -> int:
        """Return which process answers the window's batch of that number. Batch 0's also notes refusals."""
        return (window.number + batch) % self.world_size
