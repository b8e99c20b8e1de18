"""Rows of table `session`: finding them, and writing them inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from medchat.errors import MedchatError
from medchat.language import say
from medchat.store import turn_rows
from medchat.store.records import (
    SavedTurn,
    SessionKind,
    SessionRecord,
    looks_like_an_id,
    new_id,
    stored,
)
from medchat.store.references import refuse_taken

SELECT = """SELECT session.*,
    (SELECT count(*) FROM turn WHERE session_id = session.id AND undone = 0) AS turns,
    (SELECT question FROM turn WHERE session_id = session.id AND undone < 2 ORDER BY position LIMIT 1)
        AS first_question,
    (SELECT kind FROM session_kind WHERE session_id = session.id) AS kind
    FROM session"""
#: Hides sessions without turns, unless they have a name.
WORTH_SHOWING = "(name IS NOT NULL OR EXISTS (SELECT 1 FROM turn WHERE session_id = session.id))"
NEWEST_FIRST = "ORDER BY updated DESC, rowid DESC"
_IS_ASK = f"EXISTS (SELECT 1 FROM session_kind WHERE session_id = session.id AND kind = '{SessionKind.ASK}')"


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list. `model` is a part of the backbone's or the model's name, in any case."""

    model: str = ""
    since: datetime | None = None
    until: datetime | None = None
    with_asks: bool = True

    def condition(self) -> tuple[str, tuple[object, ...]]:
        """Return the WHERE condition, and its values."""
        parts, values = [WORTH_SHOWING], list[object]()
        if self.model:
            parts.append("instr(lower(backbone || ' ' || model), ?) > 0")
            values.append(self.model.lower())
        for sign, moment in ((">=", self.since), ("<", self.until)):
            if moment is not None:
                parts.append(f"updated {sign} ?")
                values.append(moment.timestamp())
        if not self.with_asks:
            parts.append(f"NOT {_IS_ASK}")
        return " AND ".join(parts), tuple(values)


def insert_session(connection: sqlite3.Connection, record: SessionRecord) -> None:
    """Write a session under its id. Raises sqlite3.IntegrityError if the id, UsageError if the name is taken."""
    refuse_taken(connection, record.name)
    about = (record.backbone, record.model, json.dumps(list(record.adapters)), record.template, record.system)
    times = (record.created.timestamp(), record.updated.timestamp())
    connection.execute(
        "INSERT INTO session (id, name, created, updated, backbone, model, adapters, template, system)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (record.id, record.name, *times, *(stored(text) for text in about)),
    )
    if record.kind is not SessionKind.CHAT:
        connection.execute(
            "INSERT INTO session_kind (session_id, kind) VALUES (?, ?)", (record.id, record.kind.value)
        )


def become_chat(connection: sqlite3.Connection, session_id: str) -> None:
    """Make a session of an `ask` a chat; others do not change."""
    connection.execute(
        "DELETE FROM session_kind WHERE session_id = ? AND kind = ?", (session_id, SessionKind.ASK.value)
    )


def free_id(connection: sqlite3.Connection, wanted: str = "") -> str:
    """Return `wanted` if it is a free id, else a new one. Raises MedchatError if none is found."""
    wanted_first = chain([wanted] if looks_like_an_id(wanted) else [], (new_id() for _ in range(100)))
    for identity in wanted_first:
        if connection.execute("SELECT 1 FROM session WHERE id = ?", (identity,)).fetchone() is None:
            return identity
    raise MedchatError(say("无法取得新的会话编号", "could not find a free session id"))


def name_is_free(connection: sqlite3.Connection, name: str) -> bool:
    """Whether no session has that name."""
    return connection.execute("SELECT 1 FROM session WHERE name = ?", (name,)).fetchone() is None


def insert_turns(connection: sqlite3.Connection, session_id: str, turns: Iterable[SavedTurn]) -> list[int]:
    """Write turns with their times, in order, and return their ids."""
    written = (
        turn_rows.insert(
            connection, session_id, saved.turn, saved, saved.origin, created=saved.created.timestamp()
        )
        for saved in turns
    )
    return [turn_id for _, turn_id in written]


def change(connection: sqlite3.Connection, record: SessionRecord) -> None:
    """Update a session's backbone, model, adapters, template and system text."""
    about = (record.backbone, record.model, json.dumps(list(record.adapters)), record.template, record.system)
    connection.execute(
        "UPDATE session SET backbone = ?, model = ?, adapters = ?, template = ?, system = ?, updated = ?"
        " WHERE id = ?",
        (*(stored(text) for text in about), time.time(), record.id),
    )
