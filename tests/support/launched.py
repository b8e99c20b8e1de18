"""The variables that torchrun gives a process."""

from __future__ import annotations

import pytest


def launched(rank: int | str, world_size: int | str, *, port: int = 29500) -> dict[str, str]:
    """Return the environment of process `rank` of `world_size`, one process per machine."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank), **meeting}


def launch(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    """Make this process the first of that many."""
    for name, value in launched(0, world_size).items():
        monkeypatch.setenv(name, value)
