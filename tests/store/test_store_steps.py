"""Edits, branches and forks killed before each of their statements: the session is as before or as after."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import branching_writer
import pytest
from locations import ROOT
from stored_sessions import begin, content, last_turns

from medchat.api import Turn
from medchat.store import SessionStore

#: For each statement of a step, in a process of its own: opens a copy of the file and is killed before it.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from medchat.api import Turn
from medchat.store import SessionStore
from medchat.store.database import Database

source, step = Path(sys.argv[1]), sys.argv[2]

def take(path, before):
    database = Database(path)
    store = SessionStore(database)
    session = store.list()[0].id
    turns = [(saved.position, saved.turn) for saved in store.turns(session)]
    count = 0
    def trace(statement):
        nonlocal count
        count += 1
        if count == before:
            os.kill(os.getpid(), signal.SIGKILL)
    with database.reading() as connection:
        pass
    connection.set_trace_callback(trace)
    {
        "edit": lambda: store.append_turn(session, Turn("改", "答"), instead_of=turns[1:]),
        "answer again": lambda: store.append_turn(session, Turn("改", "答"), instead_of=turns[-1:]),
        "append after undo": lambda: store.append_turn(session, Turn("改", "答")),
        "go on": lambda: store.extend_turn(session, Turn(turns[-1][1].question, "长"), expected=turns[-1]),
        "switch": lambda: store.switch(session, (2, 0)),
        "fork": lambda: store.fork(session, "分出来的"),
        "add": lambda: store.add([store.transcript(session)]),
    }[step]()
    connection.set_trace_callback(None)
    store.close()
    return count

statements = take(Path(shutil.copy(source, source.with_name("whole.db"))), 0)
for before in range(1, statements + 1):
    path = Path(shutil.copy(source, source.with_name(f"{before}.db")))
    child = os.fork()
    if child == 0:
        take(path, before)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
print(statements)
"""


def checked_content(path: Path) -> list[Any]:
    """Check the file and return what is in it."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    with SessionStore.open(path) as store:
        return content(store)


@pytest.mark.parametrize(
    "step", ["edit", "answer again", "append after undo", "go on", "switch", "fork", "add"]
)
def test_a_step_that_is_killed_anywhere_is_done_whole_or_not_at_all(tmp_path: Path, step: str) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store)
        for question in "甲乙丙丁":
            store.append_turn(session, Turn(question, "答"))
        store.append_turn(session, Turn("乙二", "答"), instead_of=last_turns(store, session, 3))
        store.append_turn(session, Turn("丙二", "答"))
        store.append_turn(session, Turn("丁二", "答"))
        store.search(["甲"])
        store.undo(session)
    before = checked_content(Path(shutil.copy(path, tmp_path / "before.db")))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), step],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    after = checked_content(tmp_path / "whole.db")
    assert after != before
    found = [checked_content(tmp_path / f"{number}.db") for number in range(1, int(done.stdout) + 1)]
    assert all(one in (before, after) for one in found), json.dumps(found, ensure_ascii=False)
    assert found[0] == before  # so that the check compares something


# ---------------------------------------------------------------- at any moment


def storm(folder: Path, kills: int) -> None:
    """Kill `kills` writers at random moments; each file must hold what was acknowledged, and at most one step more."""
    chance = random.Random(kills)
    for index in range(kills):
        path = folder / f"{index}.db"
        process = subprocess.Popen(
            [sys.executable, branching_writer.__file__, str(path), str(index)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            acknowledged = chance.randint(3, 25)
            for _ in range(acknowledged + 1):
                assert process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.01))
            process.kill()
            acknowledged += sum(line.endswith("\n") for line in process.stdout)
        with SessionStore.unsaved() as again:
            steps = branching_writer.Steps(again, index)
            for _ in range(acknowledged):
                steps.take()
            expected = [content(again)]
            steps.take()
            assert checked_content(path) in (*expected, content(again))


def test_killed_writers_lose_no_acknowledged_edit_fork_or_branch(tmp_path: Path) -> None:
    storm(tmp_path, kills=4)


@pytest.mark.slow
def test_killed_writers_lose_no_acknowledged_edit_fork_or_branch_through_a_long_storm(tmp_path: Path) -> None:
    storm(tmp_path, kills=200)
