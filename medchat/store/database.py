"""One SQLite file, private to its owner and crash-safe: opening, writing and purging it.

Handles files, locks and transactions. For the meaning of the tables see `sessions`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medchat.errors import MedchatError
from medchat.language import say
from medchat.paths import make_private
from medchat.store.faults import damaged_database, explained
from medchat.store.schema import LATEST_FORMAT, check_ours, check_tables, format_of, migrate, tables_as_made
from medchat.whole_file import PRIVATE_FILE_MODE

#: How long to wait for another MedChat process that is writing. Saving a turn takes milliseconds.
BUSY_SECONDS = 10.0
IN_MEMORY = ":memory:"

_PRAGMAS = (
    "foreign_keys = ON",
    "synchronous = FULL",  # in WAL mode NORMAL may lose the last turns when the power goes
    "fullfsync = ON",  # macOS: fsync alone does not reach the disk; elsewhere without effect
    "secure_delete = ON",  # deleted texts are overwritten
    "temp_store = MEMORY",  # texts never go to a temporary file outside our folder
    "trusted_schema = OFF",
)


class Database:
    """An open sessions file. Usable from several threads and, on one file, from several processes."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file at `path`; None keeps everything in memory. Raises MedchatError."""
        self.path = path
        self._where = str(path) if path else IN_MEMORY
        self._lock = threading.RLock()
        with explained(self._where):
            if path:
                make_private(path.parent)
                _born_private(path)
            self._connection = sqlite3.connect(
                self._where, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException as error:
                self._connection.close()
                # These statements are fixed: they can only fail if the file's schema is damaged.
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                    raise damaged_database(self._where) from error
                raise

    def _prepare(self) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        # Text that is not UTF-8 damages one value, and must not hide the rows around it.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        check_ours(connection, self._where)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if self.path:
            _write_ahead(connection)
            _copy_before_update(connection, self.path)
        migrate(connection)
        check_tables(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """As `explained`; if a fixed statement does not compile, the schema is damaged."""
        with explained(self._where):
            try:
                yield
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_ERROR and not tables_as_made(self._connection):
                    raise damaged_database(self._where) from error
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: when the block ends, all of it is on disk; if it raises, none."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: one snapshot; other programs may write meanwhile."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return the rows of a SELECT."""
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    def purge(self) -> None:
        """Rebuild the file without deleted data and empty its log, so that no byte of it is left.

        Raises MedchatError if another process has an open snapshot of the old state.
        """
        with self._lock, self._explained():
            self._connection.execute("VACUUM")
            if self.path is None:
                return
            for beside in (copy_before_update(self.path), copied_answer(self.path)):
                beside.unlink(missing_ok=True)
            deadline = time.monotonic() + BUSY_SECONDS
            while self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise MedchatError(
                        say(
                            "已删除，但另一个 MedChat 仍开着，旧内容尚未从磁盘上抹去",
                            "deleted, but another MedChat is open, so the old text is still on disk",
                        ),
                        say(
                            "请关闭另一个 MedChat，再运行一次同样的命令",
                            "close it and run the same command again",
                        ),
                        where=self._where,
                    )
                time.sleep(0.05)

    def close(self) -> None:
        """Close the file. The last connection merges the log into it."""
        with self._lock, self._explained():
            self._connection.close()


def copy_before_update(path: Path) -> Path:
    """Return the path of the copy made before the file was migrated to a newer format."""
    return path.with_name(path.name + ".before-update")


def copied_answer(path: Path) -> Path:
    """Return the path of a copied answer that was too long for the terminal's clipboard."""
    return path.with_name("copied-answer.txt")


def _copy_before_update(connection: sqlite3.Connection, path: Path) -> None:
    """Copy the file before a migration; opening it in the new format later removes the copy.

    The migration is one transaction; the copy is for going back to the older program.
    """
    copy = copy_before_update(path)
    version = format_of(connection)
    if version == LATEST_FORMAT:
        copy.unlink(missing_ok=True)
    elif version > 0:
        partial = copy.with_name(copy.name + ".partial")
        partial.unlink(missing_ok=True)
        _born_private(partial)
        try:
            target = sqlite3.connect(partial)
            try:
                connection.backup(target)
            finally:
                target.close()
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)


def _born_private(path: Path) -> None:
    """Create the file with mode 0600 if necessary; SQLite gives its log and index the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), PRIVATE_FILE_MODE)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != PRIVATE_FILE_MODE:
            with suppress(PermissionError):  # a writable file of another user: its owner decides
                os.fchmod(descriptor, PRIVATE_FILE_MODE)
    finally:
        os.close(descriptor)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL. If the file system cannot (it stays in rollback mode), FULL is as durable.

    Two processes switching a new file at the same time get SQLITE_BUSY at once, not after the timeout.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def keys_seen_in(path: Path) -> tuple[str, ...]:
    """Return the keys marked as seen in the file, without changing it: () if it cannot be read.

    `immutable` keeps SQLite from creating a log; a key still in a log is not found, so at worst something is
    shown once more.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            return tuple(row[0] for row in connection.execute("SELECT key FROM seen LIMIT 1000"))
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError):  # SQLite's own message may quote bytes of the file
        return ()
