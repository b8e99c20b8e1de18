"""Sessions, their turns, the line editor's history, and notices already shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from medchat.api import Conversation
from medchat.paths import sessions_file
from medchat.store import branches, search_index, session_rows, turn_rows
from medchat.store.database import Database, keys_seen_in
from medchat.store.records import SessionKind, SessionRecord, Transcript, record_from, restored, stored
from medchat.store.references import checked_name, gone, matching, not_one, refuse_taken
from medchat.store.session_rows import NEWEST_FIRST, SELECT, SessionFilter
from medchat.store.turns import TurnStore

#: The number of lines in the editor's history; older ones are dropped.
INPUT_LIMIT = 5000


class SessionStore(TurnStore):
    """The saved sessions. Each writing call returns only when its change is on disk.

    Every call raises MedchatError if the file cannot be read or written (CheckpointError where it is
    damaged); a chat then warns and continues with `SessionStore.unsaved()`.
    """

    @classmethod
    def open(cls, path: Path | None = None) -> SessionStore:
        """Open the sessions file at `path` (default: the user's own), creating it if necessary."""
        return cls(Database(path or sessions_file()))

    @classmethod
    def unsaved(cls, beside: Path | None = None) -> SessionStore:
        """Return a store in memory, which is gone with `close`.

        Keys marked as seen in the file `beside` count as seen here too; the file is only read.
        """
        store = cls(Database(None))
        for key in keys_seen_in(beside) if beside else ():
            store.mark_seen(key)
        return store

    @property
    def path(self) -> Path | None:
        """The file, or None for a store in memory."""
        return self._database.path

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ sessions

    def create(
        self,
        backbone: str,
        model: str,
        adapters: Sequence[str] = (),
        template: str = "",
        system: str = "",
        name: str | None = None,
        kind: SessionKind = SessionKind.CHAT,
    ) -> SessionRecord:
        """Create a session. Raises UsageError if the name is taken or invalid."""
        now = datetime.now(UTC)
        name = checked_name(name) if name is not None else None
        with self._database.transaction() as connection:
            identity = session_rows.free_id(connection)
            record = SessionRecord(
                identity, name, now, now, backbone, model, tuple(adapters), template, system, kind=kind
            )
            session_rows.insert_session(connection, record)
        return record

    def get(self, reference: str) -> SessionRecord:
        """Return the session with that id or name, or the only one whose id begins with it.

        The four characters after the date are enough. Raises UsageError for none or several.
        """
        found: tuple[SessionRecord, ...] = ()
        for condition, values in matching(reference):
            found = found or self._records(f"{condition} {NEWEST_FIRST}", values)
        if len(found) == 1:
            return found[0]
        raise not_one(reference, found, self.list())

    def named(self, name: str) -> SessionRecord | None:
        """Return the session of exactly that name, or None (`--session NAME` then creates it)."""
        found = self._records("WHERE name = ?", [checked_name(name)])
        return found[0] if found else None

    def free_name(self, name: str) -> str:
        """Return a name as it would be stored. Raises UsageError if it is taken or invalid."""
        name = checked_name(name)
        with self._database.reading() as connection:
            refuse_taken(connection, name)
        return name

    def latest(self, *, with_asks: bool = True) -> SessionRecord | None:
        """Return the last changed session that is not both empty and nameless, or None."""
        found = self.list(SessionFilter(with_asks=with_asks), limit=1)
        return found[0] if found else None

    def list(
        self, chosen: SessionFilter | None = None, *, limit: int = -1, skip: int = 0
    ) -> tuple[SessionRecord, ...]:
        """Return the sessions of a filter, the last changed first, without empty nameless ones.

        `limit` below 0 means all; `skip` leaves out as many of the newest.
        """
        condition, values = (chosen or SessionFilter()).condition()
        return self._records(f"WHERE {condition} {NEWEST_FIRST} LIMIT ? OFFSET ?", (*values, limit, skip))

    def rename(self, session_id: str, name: str) -> SessionRecord:
        """Rename a session. Raises UsageError if the name is taken or invalid."""
        name = checked_name(name)
        with self._database.transaction() as connection:
            refuse_taken(connection, name, besides=session_id)
            turn_rows.touch(connection, session_id)
            connection.execute("UPDATE session SET name = ? WHERE id = ?", (name, session_id))
        return self._record(session_id)

    def change(
        self,
        session_id: str,
        *,
        backbone: str,
        model: str,
        adapters: Sequence[str] = (),
        template: str = "",
        system: str = "",
    ) -> SessionRecord:
        """Update the session's model, template or system text."""
        record = replace(
            self._record(session_id),
            backbone=backbone,
            model=model,
            adapters=tuple(adapters),
            template=template,
            system=system,
        )
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            session_rows.change(connection, record)
        return self._record(session_id)

    def add(self, sessions: Sequence[Transcript]) -> tuple[SessionRecord, ...]:
        """Write complete sessions in one transaction, all or none, and return them as stored.

        One whose id is taken gets a new id; one whose name is taken loses its name.
        """
        added = []
        with self._database.transaction() as connection:
            for whole in sessions:
                record = whole.record
                free = record.name and session_rows.name_is_free(connection, record.name)
                name = record.name if free else None
                kept = replace(record, id=session_rows.free_id(connection, record.id), name=name)
                session_rows.insert_session(connection, kept)
                line = session_rows.insert_turns(connection, kept.id, whole.turns)
                branches.insert_branches(connection, kept.id, line, whole.others)
                added.append(kept)
        return tuple(self._record(record.id) for record in added)

    def fork(self, session_id: str, name: str | None = None) -> SessionRecord:
        """Copy the current conversation into a new session, in one transaction.

        Other branches are not copied. Raises UsageError if the name is taken or invalid.
        """
        now = datetime.now(UTC)
        name = checked_name(name) if name is not None else None
        with self._database.transaction() as connection:
            record = replace(self._record(session_id), name=name, created=now, updated=now)
            copy = replace(record, id=session_rows.free_id(connection), kind=SessionKind.CHAT)
            session_rows.insert_session(connection, copy)
            session_rows.insert_turns(connection, copy.id, self.turns(session_id))
        return self._record(copy.id)

    def delete(self, *session_ids: str) -> int:
        """Delete sessions, their turns and their questions in the editor's history, from the disk too.

        Returns how many. All or none: raises UsageError if one does not exist.
        """
        with self._database.transaction() as connection:
            for session_id in session_ids:
                turn_rows.touch(connection, session_id)
                turn_rows.delete_session(connection, session_id)
            search_index.erase(connection)
        self._database.purge()
        return len(session_ids)

    def delete_all(self) -> int:
        """Delete every session and the editor's history, from the disk too. Returns how many sessions."""
        with self._database.transaction() as connection:
            search_index.forget_all(connection)
            count = connection.execute("DELETE FROM session").rowcount
            connection.execute("DELETE FROM input")
        self._database.purge()
        return count

    def transcript(self, session_id: str) -> Transcript:
        """Return a complete session, other branches included. Raises UsageError if there is no such session."""
        return Transcript(self._record(session_id), self.turns(session_id), self.others(session_id))

    def conversation(self, session_id: str) -> Conversation:
        """Return the session's conversation. Raises UsageError if there is no such session."""
        record = self._record(session_id)
        return Conversation(tuple(saved.turn for saved in self.turns(session_id)), record.system)

    def rewrite(self, session_id: str, change: Callable[[str], str]) -> int:
        """Replace every question and answer of a session with `change(text)`, on the disk too.

        The system text, the editor's lines for these questions and undone turns are changed as well. Returns
        how many questions and answers changed.
        """
        with self._database.transaction() as connection:
            turn_rows.touch(connection, session_id)
            changed = turn_rows.rewrite(connection, session_id, change)
            search_index.erase(connection)
        self._database.purge()
        return changed

    # ------------------------------------------------------------ the editor's history, notices already shown

    def remember_input(self, text: str) -> None:
        """Add a line to the editor's history, unless it equals the newest. Keeps `INPUT_LIMIT` lines."""
        with self._database.transaction() as connection:
            newest = connection.execute("SELECT text FROM input ORDER BY id DESC LIMIT 1").fetchone()
            if newest is not None and newest["text"] == stored(text):
                return
            connection.execute("INSERT INTO input (text, created) VALUES (?, ?)", (stored(text), time.time()))
            connection.execute(
                "DELETE FROM input WHERE id <= (SELECT max(id) FROM input) - ?", (INPUT_LIMIT,)
            )

    def recent_inputs(self, limit: int = 1000) -> tuple[str, ...]:
        """Return the editor's history, newest first."""
        rows = self._database.rows("SELECT text FROM input ORDER BY id DESC LIMIT ?", (limit,))
        return tuple(restored(row["text"]) for row in rows)

    def seen(self, key: str) -> bool:
        """Whether `key` (such as one edition of the disclaimer) was marked as seen on this install."""
        return bool(self._database.rows("SELECT 1 FROM seen WHERE key = ?", (key,)))

    def mark_seen(self, key: str) -> None:
        """Remember that `key` was shown. Survives `delete_all`: it contains no user's text."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO seen (key, created) VALUES (?, ?)", (key, time.time()))

    # ------------------------------------------------------------ internals

    def _records(self, condition: str, values: Sequence[object] = ()) -> tuple[SessionRecord, ...]:
        return tuple(record_from(row) for row in self._database.rows(f"{SELECT} {condition}", values))

    def _record(self, session_id: str) -> SessionRecord:
        found = self._records("WHERE id = ?", [session_id])
        if not found:
            raise gone(session_id)
        return found[0]
