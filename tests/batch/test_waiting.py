"""Whether the processes of a batch run are there: by the lock of their part, and by a time that changes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from medchat.batch.parts import Outputs, open_outputs, part_path
from medchat.batch.result_file import ResultFile
from medchat.batch.waiting import Presence
from medchat.errors import MedchatError
from medchat.launcher import MACHINE_VARIABLE, PATIENCE_VARIABLE, Process

#: After how many seconds a part that stays the same is nobody's.
TIMEOUT = 2


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MACHINE_VARIABLE, str(TIMEOUT))
    monkeypatch.setenv(PATIENCE_VARIABLE, "1")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def opened(output: Path, rank: int) -> Outputs:
    return open_outputs(output, Process(rank, 2), resume=False, overwrite=False)


def row(index: int) -> dict[str, object]:
    return {"index": index, "question": "q", "answer": "a", "finish": "stop"}


@pytest.mark.parametrize(("waiting", "lost"), [(0, 1), pytest.param(1, 0, marks=pytest.mark.slow)])
def test_a_part_that_is_held_for_a_machine_that_has_vanished_is_not_waited_for_for_ever(
    output: Path, waiting: int, lost: int
) -> None:
    own, held = opened(output, waiting), ResultFile.open(part_path(output, lost))
    started = time.monotonic()
    with pytest.raises(MedchatError, match=f"RANK {lost}"):
        own.finish({0, 1}, lambda text: None)
    assert TIMEOUT < time.monotonic() - started < 3 * TIMEOUT
    assert part_path(output, lost).exists() and not output.exists()
    held.close()
    own.close()


@pytest.mark.slow
def test_a_process_that_takes_longer_is_waited_for(output: Path) -> None:
    first, second = opened(output, 0), opened(output, 1)
    first.append([row(0)])
    lines: list[object] = []
    waiting = threading.Thread(target=lambda: lines.extend(first.finish({0, 1}, lambda text: None)))
    waiting.start()
    waiting.join(TIMEOUT + 1.8)  # longer than both limits together
    assert waiting.is_alive()
    second.append([row(1)])
    waiting.join(10)
    assert len(lines) == 2 and output.read_bytes().count(b"\n") == 2
    first.close()
    second.close()


def test_a_part_counts_as_nobodys_once_its_time_has_not_changed_for_that_long(output: Path) -> None:
    clock = [0.0]
    presence = Presence(lambda rank: part_path(output, rank), lambda: clock[0])
    held = ResultFile.open(part_path(output, 1))
    seen = []
    for _ in range(3 * 6 * TIMEOUT):
        clock[0] += TIMEOUT / 12
        seen.append(presence.absent([1, 2]))
    before = seen.index([1, 2])
    assert 1 <= before * TIMEOUT / 12 / TIMEOUT < 1.5
    assert seen == [[2]] * before + [[1, 2]] * (len(seen) - before)
    os.utime(part_path(output, 1))
    assert presence.absent([1, 2]) == [2]
    for _ in range(3 * 6 * TIMEOUT):
        clock[0] += TIMEOUT / 12
        presence.absent([1])
    held.close()
    assert presence.absent([1, 2]) == [1, 2]
    # Started again, it has not had the time to change anything.
    held = ResultFile.open(part_path(output, 1))
    assert presence.absent([1, 2]) == [2]
    held.close()


def test_whoever_was_stopped_itself_does_not_take_the_others_for_lost(output: Path) -> None:
    clock = [0.0]
    presence = Presence(lambda rank: part_path(output, rank), lambda: clock[0])
    held = ResultFile.open(part_path(output, 1))
    assert presence.absent([1]) == []
    clock[0] += 1000 * TIMEOUT  # as a scheduler stops all processes of a job
    assert presence.absent([1]) == []
    held.close()
