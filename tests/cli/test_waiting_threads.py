"""Threads that wait sleep instead of spinning, unless the user has said how they wait."""

from __future__ import annotations

import os

import pytest

from medchat.__main__ import PASSIVE_WAITING, wait_passively


def test_threads_wait_passively_unless_the_user_chose_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen in (None, *PASSIVE_WAITING):
        with monkeypatch.context() as patch:
            for name in PASSIVE_WAITING:
                patch.delenv(name, raising=False)
            if chosen:
                patch.setenv(chosen, "active")
            before = {name: os.environ.get(name) for name in PASSIVE_WAITING}
            wait_passively()
            found = {name: os.environ.get(name) for name in PASSIVE_WAITING}
            assert found == (before if chosen else PASSIVE_WAITING)
            for name in PASSIVE_WAITING:
                os.environ.pop(name, None)
