"""A writer killed at any moment keeps every turn it had acknowledged. Real processes, real SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from locations import ROOT

from medchat.store import SessionStore
from medchat.store.database import Database

#: Appends turns for ever; a line on stdout says that a turn is saved. Long ones span many pages, so that
#: kills fall within transactions too.
WRITER = """
import sys
from pathlib import Path
from medchat.api import Turn
from medchat.store import SessionStore
from medchat.store.database import Database

store = SessionStore.open(Path(sys.argv[1]))
session = store.create("echo", "none", name=sys.argv[2]).id
print("ready", flush=True)
number = 0
while True:
    number += 1
    answer = f"答{number}:" + "字" * (number * 7919 % 60000)
    store.append_turn(session, Turn(f"问{number}", answer))
    print(number, flush=True)
"""


def answer(number: int) -> str:
    """Return what the writer saved as its answer of that number."""
    return f"答{number}:" + "字" * (number * 7919 % 60000)


def killed_writer(path: Path, name: str, after: int, delay: float) -> int:
    """Run the writer, kill it `delay` seconds after its turn number `after`; return how many it acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        for line in ("ready", *range(1, after + 1)):
            assert process.stdout.readline() == f"{line}\n"
        time.sleep(delay)
        process.kill()
        acknowledged = [line for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    return after + len(acknowledged)


def storm(path: Path, kills: int) -> None:
    """Kill `kills` writers of one file at random moments and check the file after each."""
    chance = random.Random(kills)
    for index in range(kills):
        acknowledged = killed_writer(
            path, f"storm {index}", after=chance.randint(0, 20), delay=chance.uniform(0.0, 0.02)
        )
        with SessionStore.open(path) as store:
            saved = store.turns(store.get(f"storm {index}").id)
            assert acknowledged <= len(saved) <= acknowledged + 1
            for number, one in enumerate(saved, start=1):
                assert (one.position, one.turn.question) == (number, f"问{number}")
                assert one.turn.answer == answer(number)
            assert len(store.list()) == index + 1
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_killed_writer_keeps_every_saved_turn(tmp_path: Path) -> None:
    storm(tmp_path / "sessions.db", kills=5)


@pytest.mark.slow
def test_killed_writer_keeps_every_saved_turn_through_a_long_storm(tmp_path: Path) -> None:
    storm(tmp_path / "sessions.db", kills=50)


def test_every_commit_reaches_the_disk_before_the_call_returns(tmp_path: Path) -> None:
    """SIGKILL cannot show what a power cut would: that rests on these settings of SQLite."""
    database = Database(tmp_path / "sessions.db")
    with SessionStore(database):
        settings = {
            name: database.rows(f"PRAGMA {name}")[0][0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
