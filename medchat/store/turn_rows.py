"""Writing turns inside a transaction that the caller holds."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence

from medchat.api import Turn
from medchat.store.records import AnswerCost, PlacedTurn, SavedTurn, restored, stored, turn_from
from medchat.store.references import gone


def touch(connection: sqlite3.Connection, session_id: str) -> None:
    """Note that the session changes now. Raises UsageError if it is not there (any more)."""
    changed = connection.execute("UPDATE session SET updated = ? WHERE id = ?", (time.time(), session_id))
    if not changed.rowcount:
        raise gone(session_id)


def forget_undone(connection: sqlite3.Connection, session_id: str) -> None:
    """Delete what was undone: after a new turn it can no longer follow."""
    _claim_inputs(connection, session_id)
    connection.execute("DELETE FROM turn WHERE session_id = ? AND undone = 1", (session_id,))


def insert(connection: sqlite3.Connection, session_id: str, turn: Turn, cost: AnswerCost | None) -> int:
    """Write `turn` after the last one and return its position."""
    last = connection.execute(
        "SELECT max(position) FROM turn WHERE session_id = ? AND typeof(position) = 'integer'"
        " AND position < 1e15",  # a damaged row must not stop those after it
        (session_id,),
    )
    position: int = (last.fetchone()[0] or 0) + 1
    connection.execute(
        "INSERT INTO turn (session_id, position, question, answer, finish, created, prompt_tokens,"
        " reused_tokens, completion_tokens, first_token_seconds, seconds)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            session_id,
            position,
            stored(turn.question),
            stored(turn.answer),
            turn.finish.value,
            time.time(),
            cost.prompt_tokens if cost else 0,
            cost.reused_tokens if cost else 0,
            cost.completion_tokens if cost else 0,
            cost.first_token_seconds if cost else 0.0,
            cost.seconds if cost else 0.0,
        ),
    )
    return position


def ends_with(connection: sqlite3.Connection, session_id: str, expected: Sequence[PlacedTurn]) -> bool:
    """Whether the last turns that are not undone are exactly `expected`, oldest first."""
    rows = connection.execute(
        "SELECT * FROM turn WHERE session_id = ? AND undone = 0 ORDER BY position DESC LIMIT ?",
        (session_id, len(expected)),
    ).fetchall()
    found = [(saved.position, saved.turn) for saved in map(turn_from, reversed(rows))]
    return found == list(expected)


def delete_last(connection: sqlite3.Connection, session_id: str) -> bool:
    """Delete the last turn; return whether there was one."""
    _claim_inputs(connection, session_id)
    deleted = connection.execute(
        "DELETE FROM turn WHERE session_id = :session AND position ="
        " (SELECT max(position) FROM turn WHERE session_id = :session)",
        {"session": session_id},
    )
    return deleted.rowcount > 0


def mark_undone(
    connection: sqlite3.Connection, session_id: str, count: int, *, undone: bool
) -> tuple[SavedTurn, ...]:
    """Mark up to `count` last turns as undone, or the first undone ones as not; return them, oldest first.

    Undone turns always follow the others, so both ends meet where the conversation now stops.
    """
    order = "DESC" if undone else "ASC"
    rows = connection.execute(
        f"SELECT * FROM turn WHERE session_id = ? AND undone = ? ORDER BY position {order} LIMIT ?",
        (session_id, int(not undone), max(0, count)),
    ).fetchall()
    connection.executemany("UPDATE turn SET undone = ? WHERE id = ?", [(int(undone), r["id"]) for r in rows])
    return tuple(sorted((turn_from(row) for row in rows), key=lambda saved: saved.position))


def rewrite(connection: sqlite3.Connection, session_id: str, change: Callable[[str], str]) -> int:
    """Put `change(text)` in the place of each text of the session and of each line typed for it.

    Undone turns and the system text count too. Returns how many questions and answers are other than before.
    """
    _claim_inputs(connection, session_id)
    mine = {"session": session_id}
    _change(connection, "input", "text", "session_id = :session", mine, change)
    _change(connection, "session", "system", "id = :session", mine, change)
    return sum(
        _change(connection, "turn", column, "session_id = :session", mine, change)
        for column in ("question", "answer")
    )


def _change(
    connection: sqlite3.Connection,
    table: str,
    column: str,
    where: str,
    values: Mapping[str, str],
    change: Callable[[str], str],
) -> int:
    """Change a column of some rows and return in how many of them it is other than before."""
    rows = connection.execute(
        f"SELECT rowid AS number, {column} AS text FROM {table} WHERE {where}", values
    ).fetchall()
    texts = [(restored(row["text"]), row["number"]) for row in rows]
    other = [(stored(change(text)), number) for text, number in texts if change(text) != text]
    connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", other)
    return len(other)


def delete_session(connection: sqlite3.Connection, session_id: str) -> None:
    """Delete a session with its turns and the lines typed for them, and those for turns deleted before."""
    connection.execute(
        "DELETE FROM input WHERE text IN (SELECT question FROM turn WHERE session_id = ?)", (session_id,)
    )
    connection.execute("DELETE FROM session WHERE id = ?", (session_id,))


def _claim_inputs(connection: sqlite3.Connection, session_id: str) -> None:
    """Note whose lines these are before a turn goes, so that they can still go with the session."""
    connection.execute(
        "UPDATE input SET session_id = :session WHERE session_id IS NULL"
        " AND text IN (SELECT question FROM turn WHERE session_id = :session)",
        {"session": session_id},
    )
