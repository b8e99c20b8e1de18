"""The saved sessions as a chat sees them, where no terminal is needed to tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from medchat.api import Turn
from medchat.chat.saved_sessions import SavedSessions
from medchat.store import SavedTurn, SessionStore, Transcript

#: More than one step of the index takes.
MANY = 2500


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
    assert sessions.search(["头痛"], 0, stop) is None
    left: list[int] = []
    store.search(["头痛"], 1, left.append)
    assert left[0] < MANY - 1000  # the first step was kept
    found = sessions.search(["头痛"], 0, threading.Event())
    assert found is not None and len(found) == MANY
