"""The sessions file on disk: who may read it, and what is left of deleted words."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from stored_sessions import SECRET, begin, bytes_in, fill

from medchat import paths
from medchat.api import Turn
from medchat.errors import MedchatError
from medchat.store import SessionStore


def test_the_store_opens_the_users_own_file_by_default() -> None:
    with SessionStore.open() as store:
        assert store.path == paths.sessions_file()
    assert paths.sessions_file().is_file()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_are_born_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "new" / "deep" / "sessions.db"
    before = os.umask(umask)
    try:
        with SessionStore.open(path) as store:
            store.append_turn(begin(store), Turn("问", "答"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)] == [
        0o700
    ] * 2


def test_a_file_left_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    SessionStore.open(path).close()
    path.chmod(0o644)
    SessionStore.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("another_open", [False, True])
def test_deleting_everything_leaves_no_byte_of_it(tmp_path: Path, another_open: bool) -> None:
    path = tmp_path / "data" / "sessions.db"
    idle = SessionStore.open(path) if another_open else None
    with SessionStore.open(path) as store:
        fill(store, SECRET)
        store.remember_input(SECRET)
        if idle:
            assert len(idle.list()) == 1
        assert SECRET.encode() in bytes_in(path.parent)
        assert store.delete_all() == 1
        assert SECRET.encode() not in bytes_in(path.parent)
        assert store.list() == () and store.recent_inputs() == ()
        assert path.stat().st_size < 100_000, "the file was not rebuilt"
    assert SECRET.encode() not in bytes_in(path.parent)
    if idle:
        idle.close()


def test_deleting_one_session_leaves_no_byte_of_it_and_all_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "data" / "sessions.db"
    with SessionStore.open(path) as store:
        kept = fill(store, "留着的话")
        expected = store.turns(kept)
        deleted = fill(store, SECRET)
        fill(store, "也留着的")
        store.delete(deleted)
        assert SECRET.encode() not in bytes_in(path.parent)
        assert store.turns(kept) == expected
        assert len(store.list()) == 2
        assert "留着的话0" in store.recent_inputs()


def test_words_that_another_process_still_reads_are_reported_as_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medchat.store.database.BUSY_SECONDS", 0.2)
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        fill(store, SECRET, turns=5)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM turn").fetchone()
        with pytest.raises(MedchatError, match="另一个 MedChat") as caught:
            store.delete_all()
        assert caught.value.exit_code == 1
        reader.close()
        assert store.delete_all() == 0
        assert SECRET.encode() not in bytes_in(tmp_path)
