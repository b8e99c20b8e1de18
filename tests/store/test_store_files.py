"""The sessions file itself: who may read it, what is left of deleted words, and what happens when it breaks."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from locations import ROOT

from medchat import paths
from medchat.api import Turn
from medchat.errors import CheckpointError, MedchatError, MemoryShortageError, UsageError
from medchat.store import SessionStore
from medchat.store.database import Database
from medchat.store.faults import explain
from medchat.store.schema import MIGRATIONS, migrate

SECRET = "只有我自己知道的秘密"


def begin(store: SessionStore, name: str | None = None) -> str:
    return store.create("echo", "none", name=name).id


def bytes_in(folder: Path) -> bytes:
    """Return what is in all files of the folder, joined."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


# ---------------------------------------------------------------- places and modes


def test_medchat_home_moves_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "家"))
    found = [
        paths.config_file(),
        paths.sessions_file(),
        paths.models_dir(),
        paths.cache_dir(),
    ]
    assert all(place.is_relative_to(tmp_path / "家") for place in found)
    assert len(set(found)) == len(found)
    assert not (tmp_path / "家").exists()


def test_without_medchat_home_the_xdg_folders_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDCHAT_HOME")
    for kind in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    assert paths.config_file() == tmp_path / "CONFIG" / "medchat" / "config.toml"
    assert paths.data_dir() == tmp_path / "DATA" / "medchat"
    assert paths.cache_dir() == tmp_path / "CACHE" / "medchat"


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


# ---------------------------------------------------------------- deleted words


def fill(store: SessionStore, words: str, turns: int = 40) -> str:
    """Save a session whose turns, name and prompt hold `words` again and again, at every size."""
    session = store.create("echo", "none", system=words, name=words).id
    for number in range(turns):
        store.append_turn(session, Turn(f"{words}{number}", words * (1 + number * number)))
        store.remember_input(f"{words}{number}")
    store.undo(session, 3)
    store.replace_last(session, Turn("改写", "改写"))
    return session


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


# ---------------------------------------------------------------- several processes

_APPEND = """
import sys
from pathlib import Path
from medchat.api import Turn
from medchat.store import SessionStore
with SessionStore.open(Path(sys.argv[1])) as store:
    shared = store.named("shared") or None
    while shared is None:
        try:
            shared = store.create("echo", "none", name="shared")
        except Exception:
            shared = store.named("shared")
    own = store.create("echo", "none", name=sys.argv[2])
    for number in range(15):
        store.append_turn(own.id, Turn(f"{sys.argv[2]} {number}", "答"))
        store.append_turn(shared.id, Turn(f"{sys.argv[2]} {number}", "答"))
"""


def test_several_processes_may_create_and_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "sessions.db"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    names = [f"writer {index}" for index in range(4)]
    running = [
        subprocess.Popen([sys.executable, "-c", _APPEND, str(path), name], env=environment) for name in names
    ]
    assert [process.wait(timeout=60) for process in running] == [0] * len(running)
    with SessionStore.open(path) as store:
        for name in names:
            found = [saved.turn.question for saved in store.turns(store.get(name).id)]
            assert found == [f"{name} {number}" for number in range(15)]
        shared = store.turns(store.get("shared").id)
        assert [saved.position for saved in shared] == list(range(1, 15 * len(names) + 1))
        assert {saved.turn.question for saved in shared} == {f"{n} {i}" for n in names for i in range(15)}


def test_a_new_file_that_another_process_is_setting_up_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    release.start()
    with SessionStore.open(path) as store:
        assert store.list() == ()
    release.join()
    other.close()


def test_a_file_that_stays_locked_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medchat.store.database.BUSY_SECONDS", 0.2)
    with SessionStore.open(tmp_path / "sessions.db") as store:
        session = begin(store)
        other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MedchatError, match="占用"):
            store.append_turn(session, Turn("问", "答"))
        other.close()
        assert store.append_turn(session, Turn("问", "答")) == 1


# ---------------------------------------------------------------- other versions, other programs


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


# ---------------------------------------------------------------- damage


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


# ---------------------------------------------------------------- no room, no permission


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
