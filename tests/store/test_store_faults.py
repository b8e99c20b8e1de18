"""No room, no permission: what SQLite and the system refuse is explained, and the chat continues."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from locations import ROOT
from stored_sessions import begin

from medchat.api import Turn
from medchat.errors import CheckpointError, MedchatError, MemoryShortageError, UsageError
from medchat.store import SessionStore
from medchat.store.database import Database
from medchat.store.faults import explain


@contextmanager
def without_privileges() -> Iterator[None]:
    """Give up root for a while, where the tests run as root: nothing is closed to root."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if mine == 0:
            os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_closed_to_us_is_a_clear_error_that_names_a_way_on(open_folder: Path, mode: int) -> None:
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(mode)
    for path in (closed / "sessions.db", closed / "deeper" / "sessions.db"):
        with without_privileges(), pytest.raises(MedchatError) as caught:
            SessionStore.open(path)
        assert caught.value.exit_code == 1
        assert "MEDCHAT_HOME" in caught.value.remedy
    closed.chmod(0o755)


def test_a_file_we_may_not_write_is_a_clear_error(open_folder: Path) -> None:
    path = open_folder / "sessions.db"
    SessionStore.open(path).close()
    path.chmod(0o444)
    with without_privileges(), pytest.raises(MedchatError) as caught:
        SessionStore.open(path)
    assert caught.value.where == str(path)


def test_a_folder_in_the_files_place_and_a_file_in_the_folders_place_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "folder",
        tmp_path / "file" / "sessions.db",
        tmp_path / "file" / "a" / "sessions.db",
    ):
        with pytest.raises(MedchatError) as caught:
            SessionStore.open(path)
        assert caught.value.exit_code == 1


_FILL_UP = """
import resource, sys
from pathlib import Path
from medchat.api import Turn
from medchat.errors import MedchatError
from medchat.store import SessionStore
with SessionStore.open(Path(sys.argv[1])) as store:
    session = store.create("echo", "none", name="full").id
    store.append_turn(session, Turn("before", "x"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        store.append_turn(session, Turn("too much", "x" * 1_000_000))
    except MedchatError as error:
        print(error.exit_code, bool(error.remedy))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append_turn(session, Turn("after", "x"))
"""


def test_a_disk_that_takes_no_more_loses_only_the_turn_it_refused(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    done = subprocess.run(
        [sys.executable, "-c", _FILL_UP, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 True\n"
    with SessionStore.open(path) as store:
        saved = store.turns(store.get("full").id)
    assert [one.turn.question for one in saved] == ["before", "after"]


def test_a_full_database_is_said_to_be_and_the_chat_can_go_on_unsaved(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    with SessionStore(database) as store:
        session = begin(store)
        store.append_turn(session, Turn("存下的", "答"))
        pages = database.rows("PRAGMA page_count")[0][0]
        database.rows(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(MedchatError, match="磁盘已满"):
            store.append_turn(session, Turn("存不下的", "字" * 100_000))
        assert [one.turn.question for one in store.turns(session)] == ["存下的"]
    with SessionStore.unsaved() as unsaved:
        assert unsaved.append_turn(begin(unsaved), Turn("存不下的", "字" * 100_000)) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_NOMEM, MemoryShortageError),
        (sqlite3.SQLITE_TOOBIG, UsageError),
        (sqlite3.SQLITE_IOERR_FSYNC, MedchatError),
        (sqlite3.SQLITE_READONLY_DBMOVED, MedchatError),
        (sqlite3.SQLITE_CORRUPT_INDEX, CheckpointError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, MedchatError),
    ],
)
def test_sqlites_failures_are_explained(code: int, kind: type[MedchatError]) -> None:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    told = explain(error, "/data/sessions.db")
    assert type(told) is kind
    assert re.search(r"[\u4e00-\u9fff]", told.what)


def test_a_defect_of_ours_is_not_dressed_up_as_the_users(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    with SessionStore(database), pytest.raises(sqlite3.OperationalError):
        database.rows("SELECT nonsense")
