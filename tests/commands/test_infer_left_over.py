"""Batch inference where the environment names processes that are not there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from batch_program import Parrot, rows, write_questions
from launched import launched


@pytest.fixture
def parrot(tmp_path: Path) -> Parrot:
    return Parrot(tmp_path / "parrot")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "questions.jsonl", 4)


@pytest.mark.parametrize(
    "left", [{"WORLD_SIZE": "2", "RANK": "0"}, {"WORLD_SIZE": "8"}, {"RANK": "3", "WORLD_SIZE": "4"}]
)
def test_what_a_job_left_behind_is_refused_before_anything_is_written(
    parrot: Parrot, questions: Path, tmp_path: Path, left: dict[str, str]
) -> None:
    ended = parrot.infer(questions, tmp_path / "answers.jsonl", environment=left)
    assert ended.returncode == 2 and f"unset {' '.join(sorted(left))}" in ended.stderr, ended.stderr
    assert not list(tmp_path.glob("answers*")) and parrot.calls() == []


@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "3"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "fp8"},
        {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
        {"OMPI_COMM_WORLD_SIZE": "4", "PMI_RANK": "2"},
    ],
)
def test_what_is_harmless_is_ignored(
    parrot: Parrot, questions: Path, tmp_path: Path, left: dict[str, str]
) -> None:
    output = tmp_path / "answers.jsonl"
    ended = parrot.infer(questions, output, environment=left)
    assert ended.returncode == 0 and len(rows(output)) == 4, ended.stderr


@pytest.mark.parametrize(("rank", "missing"), [(0, "1"), (1, "0")])
def test_a_process_that_waits_in_vain_ends_and_names_whom_it_waited_for(
    parrot: Parrot, questions: Path, tmp_path: Path, rank: int, missing: str
) -> None:
    started = time.monotonic()
    ended = parrot.infer(
        questions,
        tmp_path / "answers.jsonl",
        environment={**launched(rank, 2), "MEDCHAT_LAUNCH_TIMEOUT": "2"},
    )
    assert 2 <= time.monotonic() - started < 30
    assert ended.returncode == 1 and f"RANK {missing}" in ended.stderr and "unset RANK" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_that_comes_when_all_is_done_ends(parrot: Parrot, questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    assert parrot.infer(questions, output).returncode == 0
    late = parrot.infer(questions, output, "--resume", environment=launched(1, 2))
    assert late.returncode == 0 and len(rows(output)) == 4
    assert not list(tmp_path.glob("*.part-*"))


@pytest.mark.parametrize("value", ["0", "soon"])
def test_a_senseless_timeout_is_refused(parrot: Parrot, questions: Path, tmp_path: Path, value: str) -> None:
    ended = parrot.infer(questions, tmp_path / "answers.jsonl", environment={"MEDCHAT_LAUNCH_TIMEOUT": value})
    assert ended.returncode == 2 and "MEDCHAT_LAUNCH_TIMEOUT" in ended.stderr
