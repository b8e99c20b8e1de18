"""Several processes on one sessions file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from locations import ROOT
from stored_sessions import begin

from medchat.api import Turn
from medchat.errors import MedchatError
from medchat.store import SessionStore

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
