"""The saved sessions as a chat sees them, where no terminal is needed to tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_session import session_of

from medchat.api import GenerationConfig, Turn
from medchat.chat.events import AnswerContext, TurnStats
from medchat.chat.recorder import StoreRecorder
from medchat.chat.saved_sessions import SavedSessions
from medchat.errors import UsageError
from medchat.store import SavedTurn, SessionStore, Transcript

#: More than one step of the index takes.
MANY = 4500


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionStore]:
    """A session of many turns that were never searched."""
    with SessionStore.open(tmp_path_factory.mktemp("store") / "sessions.db") as store:
        record = store.create("b", "m")
        store.add([Transcript(record, (SavedTurn(1, Turn("问", "头痛"), record.created),) * MANY)])
        yield store


def sessions_on(store: SessionStore) -> SavedSessions:
    prepared: Any = SimpleNamespace(store=store)  # a search needs nothing else
    return SavedSessions(prepared)


def test_a_search_that_is_stopped_finds_nothing_and_the_next_one_goes_on_from_there(
    store: SessionStore,
) -> None:
    sessions, stop = sessions_on(store), threading.Event()
    stop.set()
    assert sessions.search(["头痛"], 0, stop, pytest.fail) is None
    left: list[int] = []
    store.search(["头痛"], 1, left.append)
    assert left[0] < MANY - 2000  # the first step was kept
    found = sessions.search(["头痛"], 0, threading.Event(), left.append)
    assert found is not None and len(found) == MANY


def test_what_a_failing_disk_left_in_memory_is_saved_whole_once_it_works_again(tmp_path: Path) -> None:
    def save(recorder: StoreRecorder, number: int, instead_of: int = 0) -> None:
        recorder.save(
            Turn(str(number), "答"), TurnStats(), AnswerContext(GenerationConfig()), instead_of=instead_of
        )

    with SessionStore.open(tmp_path / "sessions.db") as disk, SessionStore.unsaved() as memory:
        failed = StoreRecorder(memory, lambda store: store.create("b", "m"), None, pytest.fail)
        for number in (1, 2):
            save(failed, number)
        save(failed, 3, instead_of=1)
        prepared: Any = SimpleNamespace(store=disk, recorder_in_use=failed, record=None, choice=None)
        prepared.recorder = lambda record: StoreRecorder(disk, pytest.fail, record, pytest.fail)
        session = SavedSessions(prepared).save(session_of(), None)
        save(session.recorder, 4)
        whole = disk.transcript(disk.list()[0].id)
        assert [saved.turn.question for saved in whole.turns] == ["1", "3", "4"]
        assert [other.saved.turn.question for other in whole.others] == ["2"]
        with pytest.raises(UsageError, match="已有名为"):
            disk.rename(whole.record.id, "头痛")
            prepared.recorder_in_use = failed
            SavedSessions(prepared).save(session_of(), "头痛")
