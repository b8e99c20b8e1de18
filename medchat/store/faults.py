"""Errors of the sessions file, with the command to type next."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from medchat.errors import CheckpointError, MedchatError, MemoryShortageError, UsageError
from medchat.language import say

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_CLOSED_OFF = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Translate errors of SQLite and the system about the file at `where` into MedchatError."""
    try:
        yield
    except sqlite3.Error as error:
        explained = explain(error, where)
        if explained is None:
            raise
        raise explained from error
    except UnicodeDecodeError as error:  # SQLite's own message quotes bytes of the file
        raise damaged_database(where) from error
    except OSError as error:
        raise _closed_off(error.strerror or str(error), where) from error


def explain(error: sqlite3.Error, where: str) -> MedchatError | None:
    """Return the error to show for `error`, or None if it can only be a bug."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    # Our rows violate no constraint, except an id that exists already: the table is damaged.
    constraint = code == sqlite3.SQLITE_CONSTRAINT and extended != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
    if code in _DAMAGED or constraint:
        return damaged_database(where)
    if code in _LOCKED:
        return MedchatError(
            say("会话数据库一直被另一个程序占用", "another program keeps the session database locked"),
            say("请关闭另一个 MedChat 后再试", "close the other MedChat and try again"),
            where=where,
        )
    if code in _CLOSED_OFF:
        return _closed_off(str(error), where)
    if code == sqlite3.SQLITE_FULL:
        return MedchatError(
            say("磁盘已满，会话没有存下", "the disk is full; the session was not saved"),
            say("请腾出空间后再试", "free some space and try again"),
            where=where,
        )
    if code == sqlite3.SQLITE_IOERR:
        return MedchatError(
            say(f"读写会话数据库失败：{error}", f"reading or writing the session database failed: {error}"),
            say("请检查磁盘空间和磁盘状态", "check the disk and the space left on it"),
            where=where,
        )
    if code == sqlite3.SQLITE_TOOBIG:
        return UsageError(say("文本太长，无法保存", "the text is too long to be saved"), where=where)
    if code == sqlite3.SQLITE_NOMEM:
        return MemoryShortageError(say("内存不足，无法保存会话", "not enough memory to save the session"))
    return None


def damaged_database(where: str) -> CheckpointError:
    """Return the error for a damaged file. Its remedy moves the file and its log aside together: a log
    left behind would be replayed into the new file, and it may hold the newest turns."""
    aside = shlex.quote(str(Path(where).parent / f"damaged-{datetime.now():%Y%m%d-%H%M%S}"))
    command = f"mkdir {aside} && mv {shlex.quote(where)}* {aside}"
    return CheckpointError(
        say("会话数据库已损坏", "the session database is damaged"),
        say(
            f"移开后重新开始（内容不会丢失，之后可尝试用 sqlite3 的 .recover 恢复）：{command}",
            f"move it aside and start again (nothing is lost; sqlite3's .recover may rescue it): {command}",
        ),
        where=where,
    )


def _closed_off(reason: str, where: str) -> MedchatError:
    return MedchatError(
        say(f"无法读写会话数据库：{reason}", f"cannot read and write the session database: {reason}"),
        say(
            "请修正权限，或用 MEDCHAT_HOME 指定可写的目录；不保存也能聊：--no-save",
            "fix the permissions, or point MEDCHAT_HOME at a writable folder; to chat unsaved: --no-save",
        ),
        where=where,
    )
