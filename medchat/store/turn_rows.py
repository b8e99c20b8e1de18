"""Writes turns inside the caller's transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from medchat.api import Turn
from medchat.store.records import AnswerCost, AnswerOrigin, PlacedTurn, SavedTurn, restored, stored, turn_from
from medchat.store.references import gone
from medchat.store.search_index import forget


def touch(connection: sqlite3.Connection, session_id: str) -> None:
    """Set the session's time of change. Raises UsageError if it does not exist (any more)."""
    changed = connection.execute("UPDATE session SET updated = ? WHERE id = ?", (time.time(), session_id))
    if not changed.rowcount:
        raise gone(session_id)


def insert(
    connection: sqlite3.Connection,
    session_id: str,
    turn: Turn,
    cost: AnswerCost | None,
    origin: AnswerOrigin | None = None,
    *,
    created: float | None = None,
) -> tuple[int, int]:
    """Insert `turn` after the last one; return its position and its id. `created` is a Unix time, now if None."""
    last = connection.execute(
        "SELECT max(position) FROM turn WHERE session_id = ? AND typeof(position) = 'integer'"
        " AND position < 1e15",  # a damaged row must not affect those after it
        (session_id,),
    )
    position: int = (last.fetchone()[0] or 0) + 1
    written = connection.execute(
        "INSERT INTO turn (session_id, position, question, answer, finish, created, prompt_tokens,"
        " reused_tokens, completion_tokens, first_token_seconds, seconds)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            session_id,
            position,
            stored(turn.question),
            stored(turn.answer),
            turn.finish.value,
            time.time() if created is None else created,
            cost.prompt_tokens if cost else 0,
            cost.reused_tokens if cost else 0,
            cost.completion_tokens if cost else 0,
            cost.first_token_seconds if cost else 0.0,
            cost.seconds if cost else 0.0,
        ),
    )
    turn_id = int(written.lastrowid or 0)
    if origin is not None:
        _note_origin(connection, turn_id, origin)
    return position, turn_id


def extend_last(
    connection: sqlite3.Connection,
    session_id: str,
    turn: Turn,
    cost: AnswerCost | None,
    origin: AnswerOrigin | None,
) -> int:
    """Replace the last turn's answer with the longer one of `turn`, add its cost, and return its position."""
    row = connection.execute(
        "SELECT id, position FROM turn WHERE session_id = ? AND undone = 0 ORDER BY position DESC LIMIT 1",
        (session_id,),
    ).fetchone()
    forget(connection, "id = ?", (row["id"],))  # the next search indexes the new text
    tokens, seconds = (cost.completion_tokens, cost.seconds) if cost else (0, 0.0)
    connection.execute(
        "UPDATE turn SET answer = ?, finish = ?, completion_tokens = completion_tokens + ?, seconds = seconds + ?"
        " WHERE id = ?",
        (stored(turn.answer), turn.finish.value, tokens, seconds, row["id"]),
    )
    if origin is not None:
        _note_origin(connection, row["id"], origin)
    return int(row["position"])


def _note_origin(connection: sqlite3.Connection, turn_id: int, origin: AnswerOrigin) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO turn_origin (turn_id, origin) VALUES (?, ?)", (turn_id, origin.to_json())
    )


def ends_with(connection: sqlite3.Connection, session_id: str, expected: Sequence[PlacedTurn]) -> bool:
    """Whether the last turns that are not undone are exactly `expected`, oldest first."""
    rows = connection.execute(
        "SELECT * FROM turn WHERE session_id = ? AND undone = 0 ORDER BY position DESC LIMIT ?",
        (session_id, len(expected)),
    ).fetchall()
    found = [(saved.position, saved.turn) for saved in map(turn_from, reversed(rows))]
    return found == list(expected)


def mark_undone(
    connection: sqlite3.Connection, session_id: str, count: int, *, undone: bool
) -> tuple[SavedTurn, ...]:
    """Mark up to `count` last turns as undone, or the first undone ones as current; return them, oldest first.

    Undone turns always follow the others, so they begin where the conversation ends.
    """
    order = "DESC" if undone else "ASC"
    rows = connection.execute(
        f"SELECT * FROM turn WHERE session_id = ? AND undone = ? ORDER BY position {order} LIMIT ?",
        (session_id, int(not undone), max(0, count)),
    ).fetchall()
    connection.executemany("UPDATE turn SET undone = ? WHERE id = ?", [(int(undone), r["id"]) for r in rows])
    return tuple(sorted((turn_from(row) for row in rows), key=lambda saved: saved.position))


def rewrite(connection: sqlite3.Connection, session_id: str, change: Callable[[str], str]) -> int:
    """Replace each text of the session and each line typed for it with `change(text)`.

    Undone turns and the system text are included. Returns how many questions and answers changed.
    """
    _claim_inputs(connection, session_id)
    forget(connection, "session_id = ?", (session_id,))  # the next search indexes the new text
    _rewrite_origins(connection, session_id, change)
    mine = {"session": session_id}
    _change(connection, "input", "text", "session_id = :session", mine, change)
    _change(connection, "session", "system", "id = :session", mine, change)
    return sum(
        _change(connection, "turn", column, "session_id = :session", mine, change)
        for column in ("question", "answer")
    )


def _rewrite_origins(connection: sqlite3.Connection, session_id: str, change: Callable[[str], str]) -> None:
    rows = connection.execute(
        "SELECT turn_id, origin FROM turn_origin JOIN turn ON turn.id = turn_id WHERE session_id = ?",
        (session_id,),
    ).fetchall()
    for row in rows:
        origin = AnswerOrigin.from_json(row["origin"])
        other = replace(origin, system=change(origin.system))
        connection.execute(
            "UPDATE turn_origin SET origin = ? WHERE turn_id = ?", (other.to_json(), row["turn_id"])
        )


def _change(
    connection: sqlite3.Connection,
    table: str,
    column: str,
    where: str,
    values: Mapping[str, str],
    change: Callable[[str], str],
) -> int:
    """Change a column of some rows and return in how many of them it changed."""
    rows = connection.execute(
        f"SELECT rowid AS number, {column} AS text FROM {table} WHERE {where}", values
    ).fetchall()
    texts = [(restored(row["text"]), row["number"]) for row in rows]
    other = [(stored(change(text)), number) for text, number in texts if change(text) != text]
    connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", other)
    return len(other)


def delete_session(connection: sqlite3.Connection, session_id: str) -> None:
    """Delete a session with its turns and the lines typed for them and for turns deleted earlier."""
    connection.execute(
        "DELETE FROM input WHERE text IN (SELECT question FROM turn WHERE session_id = ?)", (session_id,)
    )
    _delete_turns(connection, "session_id = ?", session_id)
    connection.execute("DELETE FROM session WHERE id = ?", (session_id,))


def _delete_turns(connection: sqlite3.Connection, condition: str, session_id: str) -> int:
    """Delete the turns of a condition, also from the search index; return how many."""
    forget(connection, condition, (session_id,))
    return connection.execute(f"DELETE FROM turn WHERE {condition}", (session_id,)).rowcount


def _claim_inputs(connection: sqlite3.Connection, session_id: str) -> None:
    """Note the session of a turn's typed lines before it is deleted, so that they are deleted with the session."""
    connection.execute(
        "UPDATE input SET session_id = :session WHERE session_id IS NULL"
        " AND text IN (SELECT question FROM turn WHERE session_id = :session)",
        {"session": session_id},
    )
