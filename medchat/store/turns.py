"""The turns of saved sessions: saving, undo, branches, searching."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from medchat.api import Turn
from medchat.errors import MedchatError
from medchat.store import search_index, session_rows, turn_rows
from medchat.store.branches import BranchPoint, Tree, branch_off, turns_at
from medchat.store.database import Database
from medchat.store.records import (
    AnswerCost,
    AnswerOrigin,
    BranchTurn,
    PlacedTurn,
    SavedTurn,
    turn_from,
)
from medchat.store.search import FoundTurn, find_turns

_TURNS = "SELECT turn.*, origin FROM turn LEFT JOIN turn_origin ON turn_id = turn.id"


class TurnStore:
    """The part of `SessionStore` about turns. Each writing call is one transaction, on disk when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append_turn(
        self,
        session_id: str,
        turn: Turn,
        cost: AnswerCost | None = None,
        origin: AnswerOrigin | None = None,
        *,
        instead_of: Sequence[PlacedTurn] = (),
        in_chat: bool = False,
    ) -> int:
        """Save a turn, replacing the last ones, which stay as another branch; return its position, from 1.

        Undone turns stay as a branch too. If the last turns are not `instead_of` (oldest first), another
        process wrote meanwhile: all stay, and the turn follows them. The same is true if the position is not
        the expected one. `in_chat`: a session that began as an `ask` is a chat from then on.
        """
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            if in_chat:
                session_rows.become_chat(connection, session_id)
            ours = instead_of and turn_rows.ends_with(connection, session_id, instead_of)
            branch_off(connection, session_id, instead_of[0][0] if ours else None)
            position, _ = turn_rows.insert(connection, session_id, turn, cost, origin)
            return position

    def extend_turn(
        self,
        session_id: str,
        turn: Turn,
        cost: AnswerCost | None = None,
        origin: AnswerOrigin | None = None,
        *,
        expected: PlacedTurn,
        in_chat: bool = False,
    ) -> int:
        """Replace the last turn's answer with the longer one of `turn` and return its position.

        If the last turn is not `expected`, it is another process's: it stays, and the turn follows it.
        `in_chat`: as for `append_turn`.
        """
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            if in_chat:
                session_rows.become_chat(connection, session_id)
            if turn_rows.ends_with(connection, session_id, [expected]):
                return turn_rows.extend_last(connection, session_id, turn, cost, origin)
            branch_off(connection, session_id)
            position, _ = turn_rows.insert(connection, session_id, turn, cost, origin)
            return position

    def undo(
        self, session_id: str, count: int = 1, *, expected: Sequence[PlacedTurn] = ()
    ) -> tuple[SavedTurn, ...]:
        """Undo up to `count` last turns and return them, oldest first. `restore` redoes them.

        If the last turns are not `expected` (oldest first), another process wrote meanwhile: nothing is
        undone, and () returned.
        """
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            if not turn_rows.ends_with(connection, session_id, expected):
                return ()
            return turn_rows.mark_undone(connection, session_id, count, undone=True)

    def restore(self, session_id: str, count: int = 1) -> tuple[SavedTurn, ...]:
        """Redo up to `count` turns that were undone since the last save; return them, oldest first."""
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            return turn_rows.mark_undone(connection, session_id, count, undone=False)

    def branches(self, session_id: str) -> tuple[BranchPoint, ...]:
        """Return the places where the conversation branches, its end included."""
        with self._database.reading() as connection:
            return Tree(connection, session_id).points()

    def turns_at(self, point: BranchPoint) -> tuple[SavedTurn, ...]:
        """Return the turns at a place of `branches`, in the order of its alternatives."""
        with self._database.reading() as connection:
            return turns_at(connection, point)

    def others(self, session_id: str) -> tuple[BranchTurn, ...]:
        """Return the turns that are not in the current conversation, undone ones included."""
        with self._database.reading() as connection:
            return Tree(connection, session_id).others()

    def switch(
        self,
        session_id: str,
        where: tuple[int, int] | None = None,
        *,
        expected: Sequence[PlacedTurn] = (),
    ) -> bool:
        """Switch to another branch: `where` is position and alternative (an index of `BranchPoint.alternatives`).

        Without `where`: to the next alternative at the last place that has several. False, without a change,
        if there is none, or if the last turns are not `expected` (another process wrote).
        """
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            tree = Tree(connection, session_id)
            way = where or tree.next_way()
            if way is None or not turn_rows.ends_with(connection, session_id, expected):
                return False
            return tree.take(*way)

    def turns(self, session_id: str) -> tuple[SavedTurn, ...]:
        """Return the turns of the current conversation, oldest first."""
        rows = self._database.rows(
            f"{_TURNS} WHERE session_id = ? AND undone = 0 ORDER BY position", (session_id,)
        )
        return tuple(turn_from(row) for row in rows)

    def search(
        self, terms: Sequence[str], limit: int = 20, progress: Callable[[int], None] | None = None
    ) -> tuple[FoundTurn, ...]:
        """Return up to `limit` turns that contain every term, the best first; `limit` 0: all.

        Turns of every branch are found. New turns are indexed first, in batches between which other programs
        can write; `progress` is called after each with how many are left.
        """
        try:
            return self._search(terms, limit, progress)
        except (MedchatError, sqlite3.DatabaseError):
            # A damaged index is rebuilt; if more than that is damaged, this raises the error.
            with self._database.transaction() as connection:
                search_index.forget_all(connection)
            return self._search(terms, limit, progress)

    def _search(
        self, terms: Sequence[str], limit: int, progress: Callable[[int], None] | None
    ) -> tuple[FoundTurn, ...]:
        left = 1
        while left:
            with self._database.transaction() as connection:
                left = search_index.update(connection)
            if left and progress is not None:
                progress(left)
        with self._database.reading() as connection:
            return find_turns(connection, terms, limit)
