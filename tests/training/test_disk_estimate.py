"""The room that a run takes on the disk: said and held against what is free before anything is loaded."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from sft_arguments import sft

from medchat.training import checkpoint as checkpoints

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

Usage = namedtuple("Usage", ["total", "used", "free"])
#: A run of nine steps that saves each, so that the newest are kept, the best beside them.
FLAGS = (
    "--batch-size",
    "1",
    "--micro-batch-size",
    "1",
    "--max-steps",
    "9",
    "--save-steps",
    "1",
    "--samples",
    "0",
)


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let every disk have so many bytes left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**50, 2**50 - free, free))


def planned(call: Call, words: tuple[str, ...]) -> dict[str, Any]:
    disk: dict[str, Any] = call(*words, "--dry-run", "--json").one()["disk"]
    return disk


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("method", ["full", "lora", "ptuning"])
def test_the_most_that_stood_there_is_what_was_said(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    output = tmp_path / "out"
    kept = ("--val-size", "2", "--save-total", "2")
    words = sft(tmp_path, "--method", method, "--output", str(output), *kept, *FLAGS, hidden_size=256)
    said = planned(call, words)
    parts = said["parts"]
    assert set(parts) >= {"checkpoints", "best", "result"} and said["total"] == sum(parts.values())
    totals, checkpoint = [], [0]
    remove_old = checkpoints.remove_old

    def look(folder: Path, *arguments: Any) -> None:
        totals.append(size(output))
        checkpoint[0] = max(size(path) for path in folder.iterdir())
        remove_old(folder, *arguments)

    monkeypatch.setattr(checkpoints, "remove_old", look)
    assert call(*words, "--yes").code == 0
    assert len(totals) == 9 and max(*totals, size(output)) <= said["total"]
    for actual, estimated in ((checkpoint[0], parts["best"]), (size(output), parts["result"])):
        assert 0 <= estimated - actual <= 1.1 * 2**20, method
    assert 2 * parts["best"] == parts["checkpoints"]


def test_what_there_is_no_room_for_is_refused_before_anything_is_written(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output), *FLAGS)
    total = planned(call, words)["total"]
    room(monkeypatch, total - 1)
    refused = call(*words, "--yes")
    what, remedy = refused.failure()
    assert refused.code == 1 and "磁盘空间不够" in what and "--save-total 1" in remedy
    assert not output.exists()
    dry = call(*words, "--dry-run")
    assert dry.code == 1 and "放不下" in dry.out and "磁盘" in dry.out
    room(monkeypatch, total)
    assert call(*words, "--dry-run").code == 0


def test_fewer_checkpoints_and_shorter_runs_take_less(tmp_path: Path, call: Call) -> None:
    words = sft(tmp_path, *FLAGS, "--val-size", "0")
    parts = [
        planned(call, (*words, *more))["parts"]
        for more in ((), ("--save-total", "1"), ("--max-steps", "2"), ("--save-steps", "-1"))
    ]
    kept = [part.get("checkpoints", 0) for part in parts]
    assert kept[0] == 3 * kept[1] and kept[2] == 2 * kept[1] and kept[3] == 0
    assert "best" not in parts[0] and "writing" in parts[0] and "writing" not in parts[2]
