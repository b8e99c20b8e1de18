"""The parts of a conversation other than the model: advisers, reviewers, listeners, a gate, a recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from medchat.api import Conversation, Notice, Turn
from medchat.chat.events import AnswerContext, TurnStats
from medchat.store import BranchPoint, SavedTurn

#: Takes a question on which a red flag fired, its answer, and the keys of the notices shown before.
Reviewer = Callable[[str, str, frozenset[str]], Iterable[Notice]]
Adviser = Callable[[Conversation, str], Iterable[Notice]]
Listener = Callable[[Conversation, Turn], None]


class QuestionGate(Protocol):
    """Decides which questions are passed to a model that can answer only a few (the demo's)."""

    #: The last question if it was refused, else "".
    refused: str

    def meant(self, typed: str) -> str:
        """Return the question that `typed` stands for."""
        ...

    def admit(self, question: str, *, insist: bool) -> Sequence[Notice]:
        """Return notices to show before the answer. Raises UsageError if the question is refused."""
        ...


class Recorder(Protocol):
    """Saves turns. Each call returns only when the change is stored durably."""

    def save(self, turn: Turn, stats: TurnStats, context: AnswerContext, *, instead_of: int = 0) -> None:
        """Append one turn, replacing that many last ones, which stay as another branch."""
        ...

    def extend(self, turn: Turn, stats: TurnStats, context: AnswerContext) -> None:
        """Replace the last turn's answer with the longer one of `turn`."""
        ...

    def undo(self, count: int) -> None:
        """Undo the last `count` turns."""
        ...

    def redo(self, count: int) -> Sequence[Turn] | None:
        """Redo undone turns, else switch to the next branch; return all turns afterwards, None if there is neither."""
        ...

    def branches(self) -> Sequence[BranchPoint]:
        """Return the places where the conversation branches."""
        ...

    def turns_at(self, point: BranchPoint) -> Sequence[SavedTurn]:
        """Return the turns at a place of `branches`, in the order of its alternatives."""
        ...

    def switch(self, position: int, way: int) -> Sequence[Turn] | None:
        """Switch to that alternative at that place (from 1); return all turns afterwards, None if there is
        none.
        """
        ...

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Replace every stored text with `change(text)`."""
        ...


class NoRecorder:
    """Saves nothing (`--no-save`)."""

    def save(self, turn: Turn, stats: TurnStats, context: AnswerContext, *, instead_of: int = 0) -> None:
        """Do nothing."""

    def extend(self, turn: Turn, stats: TurnStats, context: AnswerContext) -> None:
        """Do nothing."""

    def undo(self, count: int) -> None:
        """Do nothing: nothing was saved."""

    def redo(self, count: int) -> None:
        """Return None: nothing was saved."""

    def branches(self) -> Sequence[BranchPoint]:
        """Return nothing: nothing was saved."""
        return ()

    def turns_at(self, point: BranchPoint) -> Sequence[SavedTurn]:
        """Return nothing: nothing was saved."""
        return ()

    def switch(self, position: int, way: int) -> None:
        """Return None: nothing was saved."""

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Do nothing: nothing was saved."""


def rewritten(turn: Turn, change: Callable[[str], str]) -> Turn:
    """Return the turn with `change` applied to its question and answer."""
    return replace(turn, question=change(turn.question), answer=change(turn.answer))
