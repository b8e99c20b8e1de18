"""A sessions file of another version, of another program, or damaged: refused, and nothing lost."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest
from stored_sessions import SECRET, begin, bytes_in, fill

from medchat.api import Turn
from medchat.errors import CheckpointError
from medchat.store import SessionStore
from medchat.store.schema import MIGRATIONS, migrate


def test_a_newer_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    SessionStore.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="更新版本") as caught:
        SessionStore.open(path)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="不是 MedChat"):
        SessionStore.open(path)
    assert path.read_bytes() == before


def test_a_migration_keeps_what_was_saved_and_a_failing_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store, "旧会话")
        store.append_turn(session, Turn("问", "答"))
    connection = sqlite3.connect(path, isolation_level=None)
    added = "ALTER TABLE turn ADD COLUMN note TEXT"
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (*MIGRATIONS, (added, "CREATE TABLE turn (id)")))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "note" not in [row[1] for row in connection.execute("PRAGMA table_info(turn)")]
    migrate(connection, (*MIGRATIONS, (added,)))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    assert connection.execute("SELECT question, note FROM turn").fetchall() == [("问", None)]
    connection.close()


def damage_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:100] = b"\xff" * 100
    path.write_bytes(data)


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [damage_header, damage_pages, cut_short])
def test_a_damaged_file_is_said_to_be_and_its_remedy_loses_nothing(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "a folder" / "sessions.db"
    with SessionStore.open(path) as store:
        fill(store, SECRET)
    assert callable(damage)
    damage(path)
    (path.parent / "sessions.db-wal").touch()
    before = bytes_in(path.parent)
    with pytest.raises(CheckpointError, match="损坏") as caught, SessionStore.open(path) as store:
        store.get(SECRET)
        store.turns(store.get(SECRET).id)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
    command = caught.value.remedy[caught.value.remedy.index("mkdir ") :]
    subprocess.run(["sh", "-c", command], check=True)
    (aside,) = path.parent.iterdir()
    assert bytes_in(aside) == before
    with SessionStore.open(path) as store:
        assert store.list() == ()
