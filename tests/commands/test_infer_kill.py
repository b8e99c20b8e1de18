"""Batch inference that is killed, stopped or shared out: the result file is always the same in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_program import Parrot, rows, without_seconds, write_questions
from launched import launched
from locations import ROOT

COUNT = 60


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Parrot:
    return Parrot(tmp_path_factory.mktemp("parrot"))


@pytest.fixture(autouse=True)
def _afresh(parrot: Parrot) -> Iterator[None]:
    parrot.script()
    for name in ("calls.jsonl", "gate"):
        (parrot.model / name).unlink(missing_ok=True)
    yield


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl", COUNT)


@pytest.fixture(scope="module")
def uninterrupted(parrot: Parrot, questions: Path) -> list[dict[str, object]]:
    output = questions.with_name("uninterrupted.jsonl")
    parrot.script()
    assert parrot.infer(questions, output, "--batch-size", "4").returncode == 0
    return without_seconds(rows(output))


def wait(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def kill_and_resume(
    parrot: Parrot, questions: Path, output: Path, *, kills: int, luck: random.Random
) -> None:
    """Kill the run at random moments, `kills` times, then let it end."""
    for _ in range(kills):
        process = parrot.start(questions, output, "--batch-size", "4", "--resume")
        before = size(output)
        wait(lambda process=process, before=before: size(output) > before or process.poll() is not None)
        time.sleep(luck.random() * 0.06)
        process.kill()
        process.communicate()
    ended = parrot.infer(questions, output, "--batch-size", "4", "--resume")
    assert ended.returncode == 0, ended.stderr


def test_killed_five_times_and_resumed_is_as_if_it_never_was(
    parrot: Parrot, questions: Path, uninterrupted: list[dict[str, object]], tmp_path: Path
) -> None:
    parrot.script(seconds=0.02)
    output = tmp_path / "answers.jsonl"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    kill_and_resume(parrot, questions, output, kills=5, luck=random.Random(seed))
    assert without_seconds(rows(output)) == uninterrupted
    assert list(tmp_path.iterdir()) == [output]
    # A killed batch is answered again, and never one that was stored.
    asked = [text for call in parrot.calls() for text in call["texts"]]
    assert COUNT <= len(asked) <= COUNT + 5 * 4
    assert len(set(asked)) == COUNT


@pytest.mark.slow
def test_killed_at_forty_random_moments_is_as_if_it_never_was(
    parrot: Parrot, questions: Path, uninterrupted: list[dict[str, object]], tmp_path: Path
) -> None:
    parrot.script(seconds=0.01)
    for seed in range(8):
        output = tmp_path / f"{seed}.jsonl"
        kill_and_resume(parrot, questions, output, kills=5, luck=random.Random(seed))
        assert without_seconds(rows(output)) == uninterrupted


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_what_is_answered_and_says_how_to_go_on(
    parrot: Parrot,
    questions: Path,
    uninterrupted: list[dict[str, object]],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    parrot.script(seconds=0.02)
    output = tmp_path / "answers.jsonl"
    process = parrot.start(questions, output, "--batch-size", "4")
    wait(lambda: size(output) > 0)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    kept = rows(output)
    assert 0 < len(kept) < COUNT
    assert f"{len(kept)}/{COUNT}" in err and "--resume" in err and out == ""
    assert "Traceback" not in err
    parrot.script()
    assert parrot.infer(questions, output, "--batch-size", "4", "--resume").returncode == 0
    assert without_seconds(rows(output)) == uninterrupted


def test_two_runs_cannot_write_one_file(parrot: Parrot, questions: Path, tmp_path: Path) -> None:
    parrot.script(gate="第0题")
    output = tmp_path / "answers.jsonl"
    first = parrot.start(questions, output, "--batch-size", "4")
    wait(lambda: size(output) > 0)
    second = parrot.infer(questions, output, "--resume")
    assert second.returncode == 2 and str(output) in second.stderr
    (parrot.model / "gate").touch()
    assert first.communicate()[1] is not None and first.returncode == 0
    assert len(rows(output)) == COUNT


@pytest.mark.parametrize("output_exists", [False, True])
def test_resume_with_a_missing_or_empty_file_starts(
    parrot: Parrot,
    questions: Path,
    uninterrupted: list[dict[str, object]],
    tmp_path: Path,
    output_exists: bool,
) -> None:
    output = tmp_path / "answers.jsonl"
    if output_exists:
        output.touch()
    assert parrot.infer(questions, output, "--batch-size", "4", "--resume").returncode == 0
    assert without_seconds(rows(output)) == uninterrupted


def test_resume_answers_only_what_is_missing(
    parrot: Parrot, questions: Path, uninterrupted: list[dict[str, object]], tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    parrot.infer(questions, output)
    (parrot.model / "calls.jsonl").unlink()
    lines = output.read_bytes().split(b"\n")
    torn = b"\n".join([*lines[2:50], lines[50][: len(lines[50]) // 2]])
    output.write_bytes(torn)
    ended = parrot.infer(questions, output, "--resume")
    assert ended.returncode == 0 and "不完整" in ended.stderr
    asked = [text for call in parrot.calls() for text in call["texts"]]
    assert len(asked) == COUNT - 48
    assert output.read_bytes().split(b"\n")[2:50] == lines[2:50]
    assert without_seconds(rows(output)) == uninterrupted


# ---------------------------------------------------------------- several processes


def two_processes(parrot: Parrot, questions: Path, output: Path, *more: str) -> list[subprocess.Popen[str]]:
    """Start the run as a launcher would."""
    return [parrot.start(questions, output, *more, environment=launched(rank, 2)) for rank in (0, 1)]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    told = [process.communicate(timeout=60)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


def test_two_processes_share_the_work_and_write_the_same_file(
    parrot: Parrot, questions: Path, uninterrupted: list[dict[str, object]], tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    results = ended(two_processes(parrot, questions, output, "--batch-size", "4"))
    assert [code for code, _ in results] == [0, 0], results
    assert without_seconds(rows(output)) == uninterrupted
    assert list(tmp_path.iterdir()) == [output]
    shares = {rank: [call for call in parrot.calls() if call["rank"] == rank] for rank in ("0", "1")}
    counts = [sum(len(call["texts"]) for call in share) for share in shares.values()]
    assert sum(counts) == COUNT and min(counts) >= COUNT // 3
    assert "2 个进程" in results[0][1] and "个回答" not in results[1][1]


def test_every_process_gets_a_share_of_a_small_file(parrot: Parrot, tmp_path: Path) -> None:
    data = write_questions(tmp_path / "five.jsonl", 5)
    results = ended(two_processes(parrot, data, tmp_path / "answers.jsonl"))
    assert [code for code, _ in results] == [0, 0], results
    assert {call["rank"] for call in parrot.calls()} == {"0", "1"}
    assert len(rows(tmp_path / "answers.jsonl")) == 5


@pytest.mark.parametrize("again", [1, 2, 3])
def test_two_killed_processes_are_resumed_by_any_number(
    parrot: Parrot, questions: Path, uninterrupted: list[dict[str, object]], tmp_path: Path, again: int
) -> None:
    parrot.script(seconds=0.02)
    output = tmp_path / "answers.jsonl"
    processes = two_processes(parrot, questions, output, "--batch-size", "4")
    wait(lambda: all(size(output.with_name(f"answers.jsonl.part-{rank}")) for rank in (0, 1)))
    for process in processes:
        process.kill()
        process.communicate()
    stored = sum(len(rows(path)) for path in tmp_path.iterdir())
    before = len(parrot.calls())
    assert 0 < stored < COUNT
    parrot.script()
    if again == 1:
        refused = parrot.infer(questions, output)
        assert refused.returncode == 2 and "--resume" in refused.stderr
    ranks = [launched(rank, again) for rank in range(again)]
    resumed = [
        parrot.start(questions, output, "--batch-size", "4", "--resume", environment=rank) for rank in ranks
    ]
    assert [code for code, _ in ended(resumed)] == [0] * again
    assert without_seconds(rows(output)) == uninterrupted
    assert list(tmp_path.iterdir()) == [output]
    assert sum(len(call["texts"]) for call in parrot.calls()[before:]) == COUNT - stored


def test_overwriting_by_two_processes_takes_nothing_from_the_run_before(
    parrot: Parrot, questions: Path, uninterrupted: list[dict[str, object]], tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    parrot.infer(questions, output, "--max-new-tokens", "3")
    old = output.read_bytes()
    for rank in (0, 1, 5):
        output.with_name(f"answers.jsonl.part-{rank}").write_bytes(old)
    first, second = two_processes(parrot, questions, output, "--batch-size", "4", "--overwrite")
    assert [code for code, _ in ended([first, second])] == [0, 0]
    assert without_seconds(rows(output)) == uninterrupted
    assert list(tmp_path.iterdir()) == [output]


def test_a_senseless_rank_is_refused(parrot: Parrot, questions: Path, tmp_path: Path) -> None:
    for rank, world_size in (("2", "2"), ("x", "2"), ("0", "0")):
        refused = parrot.infer(questions, tmp_path / "o.jsonl", environment=launched(rank, world_size))
        assert refused.returncode == 2 and "RANK" in refused.stderr


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--no_python"]


@pytest.mark.torch
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(TORCHRUN, id="torchrun"),
        pytest.param(ACCELERATE, id="accelerate", marks=pytest.mark.slow),
    ],
)
def test_launchers_start_two_real_processes_and_the_file_is_the_same(
    parrot: Parrot,
    questions: Path,
    uninterrupted: list[dict[str, object]],
    tmp_path: Path,
    launcher: list[str],
) -> None:
    output = tmp_path / "answers.jsonl"
    program = [sys.executable, "-m", "medchat", *parrot.arguments(questions, output, "--batch-size", "4")]
    launched = subprocess.run(
        [sys.executable, "-m", *launcher, *program],
        env=parrot.environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert launched.returncode == 0, launched.stderr
    calls = parrot.calls()
    assert {(call["rank"], call["world_size"]) for call in calls} == {("0", "2"), ("1", "2")}
    assert sum(len(call["texts"]) for call in calls) == COUNT
    assert without_seconds(rows(output)) == uninterrupted
    assert list(tmp_path.iterdir()) == [output]
