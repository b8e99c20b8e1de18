"""The tables, and the migrations from each version of them to the next.

`PRAGMA user_version` is the number of steps a file has been through, so a step is never edited once
released: add another. Questions and answers are in table `turn` under a stable integer id, which is
what a search index can refer to.
"""

from __future__ import annotations

import sqlite3

from medchat.errors import CheckpointError
from medchat.language import say

#: "MEDC": marks a file as MedChat's, so that no other program's database is ever changed.
APPLICATION_ID = 0x4D454443

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE session (
            id TEXT PRIMARY KEY,
            name TEXT UNIQUE,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            backbone TEXT NOT NULL,
            model TEXT NOT NULL,
            adapters TEXT NOT NULL,
            template TEXT NOT NULL,
            system TEXT NOT NULL
        )""",
        """CREATE TABLE turn (
            id INTEGER PRIMARY KEY,
            session_id TEXT NOT NULL REFERENCES session(id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            question TEXT NOT NULL,
            answer TEXT NOT NULL,
            finish TEXT NOT NULL,
            created REAL NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            reused_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            first_token_seconds REAL NOT NULL,
            seconds REAL NOT NULL,
            undone INTEGER NOT NULL DEFAULT 0,
            UNIQUE (session_id, position)
        )""",
        "CREATE INDEX session_by_update ON session(updated)",
        """CREATE TABLE input (
            id INTEGER PRIMARY KEY,
            text TEXT NOT NULL,
            created REAL NOT NULL,
            session_id TEXT REFERENCES session(id) ON DELETE CASCADE
        )""",
        "CREATE TABLE seen (key TEXT PRIMARY KEY, created REAL NOT NULL)",
    ),
    # Separate tables, so that a running program of the previous version can still write to the old ones.
    (
        """CREATE TABLE turn_origin (
            turn_id INTEGER PRIMARY KEY REFERENCES turn(id) ON DELETE CASCADE,
            origin TEXT NOT NULL
        )""",
        """CREATE TABLE session_kind (
            session_id TEXT PRIMARY KEY REFERENCES session(id) ON DELETE CASCADE,
            kind TEXT NOT NULL
        )""",
    ),
    # No foreign key to the turn that it follows: a running older program may delete that one. See `branches`.
    (
        """CREATE TABLE branch_turn (
            turn_id INTEGER PRIMARY KEY REFERENCES turn(id) ON DELETE CASCADE,
            parent INTEGER NOT NULL,
            depth INTEGER NOT NULL,
            set_aside INTEGER NOT NULL
        )""",
    ),
)

LATEST_FORMAT = len(MIGRATIONS)


def format_of(connection: sqlite3.Connection) -> int:
    """Return how many of `MIGRATIONS` were applied to the file, 0 for a new one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


#: The columns that the program uses, by table.
_COLUMNS = {
    "session": "id, name, created, updated, backbone, model, adapters, template, system",
    "turn": "id, session_id, position, question, answer, finish, created, prompt_tokens, reused_tokens,"
    " completion_tokens, first_token_seconds, seconds, undone",
    "input": "id, text, created, session_id",
    "seen": "key, created",
    "turn_origin": "turn_id, origin",
    "session_kind": "session_id, kind",
    "branch_turn": "turn_id, parent, depth, set_aside",
}


def check_tables(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.OperationalError if a table or column is missing, or a referenced one."""
    for table, columns in _COLUMNS.items():
        values = ", ".join("NULL" for _ in columns.split(","))
        # EXPLAIN compiles a statement, foreign keys included, without running it.
        connection.execute(f"EXPLAIN INSERT INTO {table} ({columns}) VALUES ({values})")
        connection.execute(f"EXPLAIN DELETE FROM {table}")


def tables_as_made(connection: sqlite3.Connection) -> bool:
    """Whether the file's text encoding and its tables are exactly those of `migrate`."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(fresh)
        made = _definitions(fresh)
    finally:
        fresh.close()
    try:
        return made <= _definitions(connection)
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def _definitions(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    tables = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {(encoding,), *(tuple(row) for row in tables)}


def check_ours(connection: sqlite3.Connection, where: str) -> None:
    """Raise CheckpointError if the file is another program's or a newer MedChat's. Read-only."""
    connection.execute("BEGIN")  # one snapshot: another process may be creating the tables
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = format_of(connection)
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    empty = tables == 0 and application == 0 and version == 0
    if not empty and application != APPLICATION_ID:
        raise CheckpointError(
            say("这个文件不是 MedChat 的会话数据库", "this file is not MedChat's session database"),
            say("请把它移到别处，文件未被改动", "move it elsewhere; it was not changed"),
            where=where,
        )
    if version > LATEST_FORMAT:
        raise CheckpointError(
            say(
                f"会话数据库来自更新版本的 MedChat（格式 {version}，本程序最高支持格式 {LATEST_FORMAT}）",
                f"the session database comes from a newer MedChat (format {version}, this one knows {LATEST_FORMAT})",
            ),
            say(
                "请升级 MedChat，或用 MEDCHAT_HOME 指定另一个目录；文件未被改动",
                "upgrade MedChat, or point MEDCHAT_HOME at another folder; the file was not changed",
            ),
            where=where,
        )


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Bring the file to the latest version in one transaction. Several processes may try at once."""
    if format_of(connection) >= len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = format_of(connection)
        for step in migrations[version:]:
            for statement in step:
                connection.execute(statement)
        # Pragmas take no parameters; both numbers are constants.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(version, len(migrations))}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
