"""torchrun over two machines: results are those of one process, whatever becomes of a cable or a machine.

The machines are network namespaces; skipped, with the reason, where none can be made.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from batch_program import Parrot, rows, without_seconds, write_questions
from child_process import TORCH, child_environment, run_python
from safetensors.torch import load_file
from sft_arguments import sft
from two_machines import TwoMachines, wait_until_written

from medchat.launcher import MACHINE_VARIABLE

pytest_plugins = ("two_machines",)
pytestmark = [pytest.mark.torch, pytest.mark.slow]

#: How long the cable is out, in seconds.
CUT = 10.0
#: After how many seconds a machine is lost, where a test says so.
TIMEOUT = 12
STEPS = 30


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return child_environment(MEDCHAT_HOME=str(tmp_path / "home"), MEDCHAT_LAUNCH_TIMEOUT="60")


def training(folder: Path, output: Path) -> list[str]:
    words = [
        "--output",
        str(output),
        "--num-epochs",
        str(STEPS),
        "--logging-steps",
        "1",
        "--precision",
        "float32",
    ]
    return ["medchat", *sft(folder, *words, "--save-steps", "5", family="bloom")]


def losses(output: Path) -> list[float]:
    log = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in log if "loss" in row]


def in_one_process(words: list[str], environment: dict[str, str], *more: str) -> None:
    done = run_python("-m", *words, *more, environment=environment, imported=TORCH)
    assert done.returncode == 0, done.stderr


def start_both(
    machines: TwoMachines, words: list[str], environment: dict[str, str], folder: Path
) -> tuple[list[Any], list[Path]]:
    said = [folder / f"said-{number}.txt" for number in (0, 1)]
    return [
        machines.torchrun(number, *words, environment=environment, said=said[number]) for number in (1, 0)
    ][::-1], said


def test_training_goes_on_after_the_cable_was_out_and_gives_what_one_process_gives(
    machines: TwoMachines, environment: dict[str, str], tmp_path: Path
) -> None:
    output, alone = tmp_path / "two", tmp_path / "one"
    words = training(tmp_path, output)
    processes, said = start_both(machines, ["--module", *words], environment, tmp_path)
    wait_until_written(output / "metrics.jsonl", 2)
    with machines.cut():
        time.sleep(CUT)
        assert len(losses(output)) < STEPS  # both wait for each other
    assert [process.wait(300) for process in processes] == [0, 0], said[0].read_text(encoding="utf-8")
    in_one_process([str(alone) if word == str(output) else word for word in words], environment)
    assert losses(output) == pytest.approx(losses(alone), abs=1e-5)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (output, alone))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-4 for name in ours)


def test_a_machine_that_dies_ends_the_run_by_name_and_one_process_goes_on(
    machines: TwoMachines, environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = training(tmp_path, output)
    processes, said = start_both(machines, ["--module", *words], environment, tmp_path)
    wait_until_written(output / "metrics.jsonl", 8)
    machines.kill_everything_on(1)
    assert processes[0].wait(300) == 1
    text = said[0].read_text(encoding="utf-8")
    assert "RANK 1" in text and "--resume" in text, text
    assert not (output / "adapter_model.safetensors").exists()
    in_one_process(words, environment, "--resume")
    assert len(losses(output)) == STEPS and (output / "adapter_model.safetensors").exists()


def test_a_machine_that_vanishes_silently_is_noticed_within_the_stated_time(
    machines: TwoMachines, environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = training(tmp_path, output)
    environment[MACHINE_VARIABLE] = str(TIMEOUT)
    processes, said = start_both(machines, ["--module", *words], environment, tmp_path)
    wait_until_written(output / "metrics.jsonl", 8)
    with machines.cut():
        cut_at = time.monotonic()
        assert [process.wait(120) for process in processes] == [1, 1]
    assert time.monotonic() - cut_at > TIMEOUT / 2
    for number, lost in enumerate(("RANK 1", "RANK 0")):
        text = said[number].read_text(encoding="utf-8")
        (reason,) = (line for line in text.splitlines() if MACHINE_VARIABLE in line)
        assert lost in reason and socket.gethostname() in reason and f" {TIMEOUT} " in reason, text
        assert "--resume" in text
    assert not (output / "adapter_model.safetensors").exists()
    in_one_process(words, environment, "--resume")
    assert len(losses(output)) == STEPS and (output / "adapter_model.safetensors").exists()


def test_a_machine_that_is_busy_for_longer_than_that_is_waited_for(
    machines: TwoMachines, environment: dict[str, str], tmp_path: Path
) -> None:
    """Its processes are stopped: they answer nothing themselves, as while they save or evaluate for long."""
    output = tmp_path / "run"
    environment[MACHINE_VARIABLE] = str(TIMEOUT)
    processes, said = start_both(machines, ["--module", *training(tmp_path, output)], environment, tmp_path)
    for machine in (1, 0):
        wait_until_written(output / "metrics.jsonl", 4)
        with machines.stopped(machine):
            time.sleep(1.5 * TIMEOUT)
            assert len(losses(output)) < STEPS
    assert [process.wait(300) for process in processes] == [0, 0], said[0].read_text(encoding="utf-8")
    assert len(losses(output)) == STEPS and (output / "adapter_model.safetensors").exists()


def test_answers_are_those_of_one_process_whether_the_cable_is_out_or_not(
    machines: TwoMachines, tmp_path: Path
) -> None:
    parrot = Parrot(tmp_path / "parrot", seconds=0.5)
    questions = write_questions(tmp_path / "questions.jsonl", 80)
    output, alone = tmp_path / "answers.jsonl", tmp_path / "alone.jsonl"
    words = ["medchat", *parrot.arguments(questions, output, "--batch-size", "2")]
    processes, said = start_both(machines, ["--module", *words], parrot.environment, tmp_path)
    wait_until_written(tmp_path / "answers.jsonl.part-1", 2)
    with machines.cut():
        time.sleep(CUT)
    assert [process.wait(300) for process in processes] == [0, 0], said[0].read_text(encoding="utf-8")
    assert parrot.infer(questions, alone, "--batch-size", "2").returncode == 0
    assert without_seconds(rows(output)) == without_seconds(rows(alone))
    assert not list(tmp_path.glob("answers.jsonl.part-*"))


def test_answers_of_a_machine_that_died_are_kept_and_missed_by_name(
    machines: TwoMachines, tmp_path: Path
) -> None:
    parrot = Parrot(tmp_path / "parrot", seconds=0.2)
    parrot.environment["MEDCHAT_LAUNCH_TIMEOUT"] = "5"
    questions = write_questions(tmp_path / "questions.jsonl", 60)
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part-1"
    words = ["medchat", *parrot.arguments(questions, output, "--batch-size", "2")]
    processes, said = start_both(machines, ["--module", *words], parrot.environment, tmp_path)
    wait_until_written(part, 4)
    machines.kill_everything_on(1)
    kept = part.read_bytes()
    assert processes[0].wait(300) == 1
    text = said[0].read_text(encoding="utf-8")
    assert "RANK 1" in text and "--resume" in text, text
    assert part.read_bytes() == kept and not output.exists()
    assert parrot.infer(questions, output, "--batch-size", "2", "--resume").returncode == 0
    assert len(rows(output)) == 60


def test_a_machine_whose_lock_is_kept_after_it_vanished_is_missed_by_name(
    machines: TwoMachines, tmp_path: Path
) -> None:
    """As a file server keeps it: the processes are stopped, hold their part and do nothing any more."""
    parrot = Parrot(tmp_path / "parrot", seconds=0.2)
    parrot.environment |= {"MEDCHAT_LAUNCH_TIMEOUT": "5", MACHINE_VARIABLE: "3"}
    questions = write_questions(tmp_path / "questions.jsonl", 60)
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part-1"
    words = ["medchat", *parrot.arguments(questions, output, "--batch-size", "2")]
    processes, said = start_both(machines, ["--module", *words], parrot.environment, tmp_path)
    wait_until_written(part, 4)
    with machines.stopped(1):
        kept = part.read_bytes()
        assert processes[0].wait(120) == 1
        text = said[0].read_text(encoding="utf-8")
        assert "RANK 1" in text and "--resume" in text, text
        assert part.read_bytes() == kept and not output.exists()
    machines.kill_everything_on(1)
    assert parrot.infer(questions, output, "--batch-size", "2", "--resume").returncode == 0
    assert len(rows(output)) == 60
