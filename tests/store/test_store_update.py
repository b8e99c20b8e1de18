"""Files of older programs: read as they are, updated whole or not at all, a copy beside until it has worked."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest
from child_process import child_environment, run_python
from locations import DATA

from medchat.api import Finish, Turn
from medchat.errors import CheckpointError, MedchatError
from medchat.store import AnswerOrigin, SessionKind, SessionStore
from medchat.store.database import copy_before_update
from medchat.store.schema import LATEST_FORMAT

#: Written by the programs of 29 and of 30 November 2026.
FORMATS = (1, 2)


@pytest.fixture(params=FORMATS, ids="format {}".format)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old(tmp_path: Path, version: int) -> Path:
    return Path(shutil.copy(DATA / "sessions" / f"format-{version}.db", tmp_path / "sessions.db"))


def check_content(path: Path) -> None:
    with SessionStore.open(path) as store:
        english, named = store.list()
        assert (named.name, named.adapters, named.system, named.kind) == (
            "头痛",
            ("/a/lora",),
            "系统",
            SessionKind.CHAT,
        )
        assert (english.title, named.title) == ("What is fever?", "头痛")
        first, second = store.turns(named.id)
        assert (first.turn, first.prompt_tokens, first.seconds) == (Turn("头痛怎么办？", "多休息。"), 10, 1.5)
        assert second.turn == Turn("还发烧呢", "看医生。\x00尾", Finish.CANCELLED)
        (undone,) = store.others(named.id)
        assert (undone.saved.turn.answer, undone.after) == ("撤销的回答", 2)
        assert store.turns(english.id)[0].turn.answer == "A raised \ud800 temperature."
        assert store.recent_inputs() == ("头痛怎么办？",) and store.seen("disclaimer-1")
        assert [found.saved.turn.question for found in store.search(["多休息"])] == ["头痛怎么办？"]


def test_a_file_of_a_former_format_loads_unchanged(old: Path, version: int) -> None:
    check_content(old)
    check_content(old)
    with SessionStore.open(old) as store:
        english, named = store.list()
        first, _ = store.turns(named.id)
        assert english.kind is (SessionKind.CHAT if version == 1 else SessionKind.ASK)
        assert first.origin.notices == (() if version == 1 else ("请拨打120",))


def test_a_copy_stands_beside_until_the_next_start_and_is_private(old: Path, version: int) -> None:
    before = old.read_bytes()
    SessionStore.open(old).close()
    copy = copy_before_update(old)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    restored = Path(shutil.copy(copy, old.with_name("restored.db")))
    connection = sqlite3.connect(restored)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == version
    connection.close()
    assert len(restored.read_bytes()) == len(before)
    SessionStore.open(old).close()
    assert not copy.exists()


def test_deleting_takes_the_copy_too(old: Path) -> None:
    with SessionStore.open(old) as store:
        assert copy_before_update(old).exists()
        store.delete(store.list()[0].id)
        assert not copy_before_update(old).exists()
        assert "fever" not in "".join(path.read_bytes().decode("latin-1") for path in old.parent.iterdir())


def test_a_new_file_needs_no_copy(tmp_path: Path) -> None:
    SessionStore.open(tmp_path / "sessions.db").close()
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.db"]


#: Opens the file and kills itself at the given line of the code that copies it and brings it up to date.
KILLED = """
import os, signal, sys
from pathlib import Path
from medchat.store import SessionStore, database, schema

count = 0

def trace(frame, event, argument):
    global count
    if frame.f_code.co_filename not in (database.__file__, schema.__file__):
        return None
    if event == "line":
        count += 1
        if count == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

sys.settrace(trace)
store = SessionStore.open(Path(sys.argv[1]))
sys.settrace(None)
store.close()
print(count)
"""
#: At so many places, evenly spread.
KILLS = 20


def open_and_die(path: Path, at: int) -> subprocess.CompletedProcess[bytes]:
    return run_python("-c", KILLED, str(path), str(at), environment=child_environment())


def test_an_update_that_is_killed_leaves_the_old_file_whole(old: Path, version: int) -> None:
    lines = int(open_and_die(Path(shutil.copy(old, old.with_name("counted.db"))), 0).stdout)
    assert lines > 3 * KILLS
    formats = set()
    for number in range(KILLS):
        path = Path(shutil.copy(old, old.with_name(f"{number}.db")))
        assert open_and_die(path, 1 + number * (lines - 1) // (KILLS - 1)).returncode == -signal.SIGKILL
        connection = sqlite3.connect(path)
        formats.add(connection.execute("PRAGMA user_version").fetchone()[0])
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        connection.close()
        check_content(path)
        assert not copy_before_update(path).with_name(copy_before_update(path).name + ".partial").exists()
    assert formats == {version, LATEST_FORMAT}


#: Opens copies of the file on a disk that takes files up to some sizes alone; prints what each try came to.
FULL = """
import resource, shutil, sys
from pathlib import Path
from medchat.errors import MedchatError
from medchat.store import SessionStore

old, most = Path(sys.argv[1]), resource.RLIM_INFINITY
whole = old.stat().st_size
for number in range(20):
    path = Path(shutil.copy(old, old.with_name(f"full-{number}.db")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole * number // 8, most))
    try:
        SessionStore.open(path).close()
        print("opened")
    except MedchatError as error:
        print("refused", error.exit_code, bool(error.remedy))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


def test_a_full_disk_leaves_the_old_file_whole(old: Path) -> None:
    tries = run_python("-c", FULL, str(old), environment=child_environment()).stdout.decode().splitlines()
    assert len(tries) == 20 and tries[0] == "refused 1 True" and tries[-1] == "opened"
    assert set(tries) == {"refused 1 True", "opened"}
    for number in range(20):
        check_content(old.with_name(f"full-{number}.db"))


def test_a_program_of_a_former_format_goes_on_writing_beside(old: Path) -> None:
    before = sqlite3.connect(old, isolation_level=None)  # an older MedChat that has the file open
    before.execute("PRAGMA foreign_keys = ON")
    assert before.execute("SELECT count(*) FROM session").fetchone()[0] == 2
    with SessionStore.open(old) as store:
        before.execute(
            "INSERT INTO session VALUES ('20261129-aaaa', NULL, 1, 1e10, 'echo', 'm', '[]', '', '')"
        )
        before.execute(
            "INSERT INTO turn (session_id, position, question, answer, finish, created, prompt_tokens, reused_tokens,"
            " completion_tokens, first_token_seconds, seconds) VALUES ('20261129-aaaa', 1, '旧程序', '写的', 'stop', 1,"
            " 0, 0, 0, 0, 0)"
        )
        assert store.list()[0].id == "20261129-aaaa"
        assert [found.session_id for found in store.search(["旧程序"])] == ["20261129-aaaa"]
    before.close()


def test_a_newer_format_is_refused_in_a_sentence(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute(f"PRAGMA user_version = {LATEST_FORMAT + 1}")
    connection.commit()
    connection.close()
    content = old.read_bytes()
    with pytest.raises(CheckpointError, match="更新版本的 MedChat"):
        SessionStore.open(old)
    assert old.read_bytes() == content and not copy_before_update(old).exists()


def test_a_copy_that_cannot_be_made_leaves_the_file_as_it_is(old: Path) -> None:
    content = old.read_bytes()
    copy_before_update(old).with_name(copy_before_update(old).name + ".partial").mkdir()
    with pytest.raises(MedchatError, match="无法读写会话数据库"):
        SessionStore.open(old)
    assert old.read_bytes() == content


def test_what_made_an_answer_comes_back(tmp_path: Path) -> None:
    origin = AnswerOrigin(
        "llama", "/m", ("/a",), "med", "系统", {"top_p": 0.7, "seed": None}, ("请拨打120",), "0.1.0", "zh"
    )
    with SessionStore.open(tmp_path / "sessions.db") as store:
        session = store.create("llama", "/m", kind=SessionKind.ASK)
        store.append_turn(session.id, Turn("问", "答"), None, origin)
        store.extend_turn(session.id, Turn("问", "答二"), None, origin, expected=(1, Turn("问", "答")))
        assert [saved.origin for saved in store.turns(session.id)] == [origin]
        assert store.get(session.id).kind is SessionKind.ASK


@pytest.mark.parametrize(
    "text", ["", "[", "[1]", "[" * 100_000, '{"model": 3, "adapters": [1, "a"], "later": 1}']
)
def test_a_garbled_origin_is_no_origin(text: str) -> None:
    assert AnswerOrigin.from_json(text) in (AnswerOrigin(), AnswerOrigin(adapters=("a",)))
