"""How a batch run shows its progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from batch_program import Parrot, rows, write_questions
from hypothesis import given
from hypothesis import strategies as st

from medchat.batch.questions import Question
from medchat.batch.work import WorkPlan
from medchat.datafiles.record import QuestionRecord
from medchat.launcher import Process
from medchat.units import clock

BAR = "\u2501"


def on_terminal(parrot: Parrot, data: Path, output: Path, **environment: str) -> str:
    """Run the command with stderr on a terminal and return what it wrote there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "medchat", *parrot.arguments(data, output)],
        env={**parrot.environment, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the program has ended
            break
        written += piece
    os.close(master)
    assert process.wait(30) == 0, written.decode()
    return written.decode()


@pytest.mark.terminal
def test_a_terminal_shows_a_bar_with_rate_and_time_left(tmp_path: Path) -> None:
    parrot = Parrot(tmp_path / "parrot", memory=4, seconds=0.02)
    data, output = write_questions(tmp_path / "questions.jsonl", 30), tmp_path / "answers.jsonl"
    shown = on_terminal(parrot, data, output)
    assert BAR in shown and "100%" in shown
    assert re.search(r"30/30  [\d.]+ 题/秒  \d+ 词元/秒  剩余 0:00", shown)
    assert "改为一批 4 个问题" in shown and "完成：30 个回答" in shown
    assert len(rows(output)) == 30


@pytest.mark.terminal
@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_a_terminal_without_colour_gets_plain_lines(tmp_path: Path, name: str) -> None:
    parrot = Parrot(tmp_path / "parrot")
    data = write_questions(tmp_path / "questions.jsonl", 30)
    environment = {"NO_COLOR": "1"} if name == "NO_COLOR" else {"TERM": "dumb"}
    shown = on_terminal(parrot, data, tmp_path / "answers.jsonl", **environment)
    assert BAR not in shown and "\x1b" not in shown
    assert "30/30" in shown and "100%" in shown


def test_a_pipe_gets_a_line_for_each_tenth_and_no_control_character(tmp_path: Path) -> None:
    parrot = Parrot(tmp_path / "parrot")
    data = write_questions(tmp_path / "questions.jsonl", 200)
    ended = parrot.infer(data, tmp_path / "answers.jsonl", "--batch-size", "2")
    lines = [line for line in ended.stderr.splitlines() if "题/秒" in line]
    assert 10 <= len(lines) <= 12 and "\x1b" not in ended.stderr
    assert lines[-1].startswith("100%")


def test_lengths_of_time_are_written_as_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 245, 3723)] == ["0:00", "1:00", "4:05", "1:02:03"]


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 5))
def test_every_question_falls_to_one_process_and_none_goes_without(
    count: int, batch_size: int, world_size: int
) -> None:
    questions = tuple(Question(index, index + 1, QuestionRecord("?", "?")) for index in range(count))
    plan = WorkPlan(questions, batch_size, world_size)
    shares = [plan.share(rank) for rank in range(world_size)]
    assert sum(shares) == count
    assert plan.rows <= batch_size
    windows = [question for window in plan.windows() for question in window.questions]
    assert tuple(windows) == questions
    if count >= batch_size * world_size:
        assert min(shares) > 0
    assert Process().leads and Process().alone
