"""Who takes part in a conversation beside the model: advisers, reviewers, listeners, a gate, a recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from medchat.api import Conversation, Notice, Turn
from medchat.chat.events import AnswerContext, TurnStats
from medchat.store import BranchPoint, SavedTurn

#: Looks at a question on which a red flag fired, its answer, and the keys of what was shown before.
Reviewer = Callable[[str, str, frozenset[str]], Iterable[Notice]]
Adviser = Callable[[Conversation, str], Iterable[Notice]]
Listener = Callable[[Conversation, Turn], None]


class QuestionGate(Protocol):
    """Decides which questions a model may be asked that answers few of them (the demo's)."""

    #: The question that was refused last, "" if the last one was admitted.
    refused: str

    def meant(self, typed: str) -> str:
        """Return the question that `typed` stands for."""
        ...

    def admit(self, question: str, *, insist: bool) -> Sequence[Notice]:
        """Return what to say before the answer. Raises UsageError if the model is not to be asked."""
        ...


class Recorder(Protocol):
    """Where turns are kept. Each call returns only when the change is safely stored."""

    def save(self, turn: Turn, stats: TurnStats, context: AnswerContext, *, instead_of: int = 0) -> None:
        """Append one turn, in place of that many last ones, which stay as another branch."""
        ...

    def extend(self, turn: Turn, stats: TurnStats, context: AnswerContext) -> None:
        """Put the longer answer of `turn` into the last one."""
        ...

    def undo(self, count: int) -> None:
        """Take back the last `count` turns."""
        ...

    def redo(self, count: int) -> Sequence[Turn] | None:
        """Bring back undone turns, else the next branch; return all turns as they then are, None for neither."""
        ...

    def branches(self) -> Sequence[BranchPoint]:
        """Return the places where the conversation has continued in several ways."""
        ...

    def turns_at(self, point: BranchPoint) -> Sequence[SavedTurn]:
        """Return what stood at a place of `branches`, in the order of its alternatives."""
        ...

    def switch(self, position: int, way: int) -> Sequence[Turn] | None:
        """Continue from that alternative at that place (from 1); return all turns as they then are, None for
        no such.
        """
        ...

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Put `change(text)` in place of every text that was stored."""
        ...


class NoRecorder:
    """Keeps nothing (`--no-save`)."""

    def save(self, turn: Turn, stats: TurnStats, context: AnswerContext, *, instead_of: int = 0) -> None:
        """Forget the turn."""

    def extend(self, turn: Turn, stats: TurnStats, context: AnswerContext) -> None:
        """Forget the turn."""

    def undo(self, count: int) -> None:
        """Nothing was kept, so there is nothing to take back."""

    def redo(self, count: int) -> None:
        """Nothing was kept, so nothing comes back."""

    def branches(self) -> Sequence[BranchPoint]:
        """Nothing was kept."""
        return ()

    def turns_at(self, point: BranchPoint) -> Sequence[SavedTurn]:
        """Nothing was kept."""
        return ()

    def switch(self, position: int, way: int) -> None:
        """Nothing was kept, so there is nowhere to go."""

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Nothing was kept, so there is nothing to change."""


def rewritten(turn: Turn, change: Callable[[str], str]) -> Turn:
    """Return the turn with `change(text)` in place of its question and answer."""
    return replace(turn, question=change(turn.question), answer=change(turn.answer))
