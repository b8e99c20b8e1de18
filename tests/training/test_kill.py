"""Runs killed by SIGKILL at any moment, within the writing of checkpoints too, continue and end the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from child_process import TORCH, child_environment, start_python
from short_runs import KINDS, logged_losses

from medchat.checkpoints.manifest import verify_manifest
from medchat.training import checkpoint as checkpoints

pytestmark = pytest.mark.torch

#: No run of this size takes longer, whatever else the machine does.
PATIENCE = 120.0


class Nursery:
    """Runs in processes of their own: see `sft_run`."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program

    def start(self, kind: str, output: Path, *flags: str) -> int:
        """Start a run and return its process number."""
        assert self._program.stdin
        self._program.stdin.write(" ".join([kind, str(output), *flags]) + "\n")
        self._program.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        """Wait for the run's end: its exit code, or minus the signal that ended it."""
        return int(self._line())

    def _line(self) -> str:
        assert self._program.stdout
        return self._program.stdout.readline()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = child_environment()
    with start_python(
        "-m", "short_runs", environment=environment, imported=TORCH, bufsize=1, **pipes
    ) as program:
        yield Nursery(program)
        assert program.stdin
        program.stdin.close()


@pytest.fixture(scope="module")
def uninterrupted(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[str, Path, float]]:
    """The hash, the folder and the seconds of a run that was left alone, by kind."""
    made: dict[str, tuple[str, Path, float]] = {}

    def of(kind: str) -> tuple[str, Path, float]:
        if kind not in made:
            output = tmp_path_factory.mktemp(kind) / "whole"
            started = time.monotonic()
            nursery.start(kind, output)
            assert nursery.ended() == 0
            assert result(output)["trackers"] == [], "no tracker is imported unless it was asked for"
            made[kind] = result(output)["hash"], output, time.monotonic() - started
        return made[kind]

    return of


def result(output: Path) -> dict[str, str]:
    told: dict[str, str] = json.loads(Path(f"{output}.json").read_text())
    return told


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def wait_for(seen: Callable[[], object], nursery_is_done: Callable[[], bool]) -> bool:
    """Wait, looking all the time, until something is seen. False: the run ended before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if seen():
            return True
        if nursery_is_done():
            return False
        time.sleep(0.0005)
    raise AssertionError("nothing seen")


def alive(process: int) -> bool:
    """A child that ended stays a zombie, or is gone, as soon as its parent was told."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def killed_while(
    nursery: Nursery, kind: str, output: Path, pattern: str, nth: int = 1, place: str = "checkpoints"
) -> bool:
    """Continue, and kill as soon as there is a new name like `pattern` in a folder, the `nth` time."""
    flags = ("--resume",) if (output / "run.json").exists() else ()
    folder = output / place
    process = nursery.start(kind, output, *flags)
    seen: set[str] = set()

    def enough() -> bool:
        with contextlib.suppress(FileNotFoundError):
            seen.update(path.name for path in folder.glob(pattern))
        return len(seen) >= nth

    # What an earlier kill left is removed when the run begins.
    if flags and place == "checkpoints":
        wait_for(lambda: not list(folder.glob(pattern)), lambda: not alive(process))
    found = wait_for(enough, lambda: not alive(process))
    kill(process)
    assert nursery.ended() in (0, -signal.SIGKILL)
    return found


def killed_after(nursery: Nursery, kind: str, output: Path, seconds: float) -> bool:
    """Continue, and kill after so many seconds. False: the run had ended."""
    flags = ("--resume",) if (output / "run.json").exists() else ()
    process = nursery.start(kind, output, *flags)
    end = time.monotonic() + seconds
    while time.monotonic() < end and alive(process):
        time.sleep(0.001)
    kill(process)
    return nursery.ended() == -signal.SIGKILL


def assert_same_end(nursery: Nursery, kind: str, output: Path, expected: str, whole: Path) -> None:
    nursery.start(kind, output, *(("--resume",) if (output / "run.json").exists() else ()))
    assert nursery.ended() == 0
    assert result(output)["hash"] == expected
    assert logged_losses(output) == logged_losses(whole)
    assert not list((output / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_killed_while_it_writes_a_checkpoint_it_ends_the_same(
    kind: str, nursery: Nursery, tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path, float]]
) -> None:
    """Within the first checkpoint; then within a later one, or at any moment."""
    expected, whole, seconds = uninterrupted(kind)
    output = tmp_path / "out"
    assert killed_while(nursery, kind, output, ".step-*.partial")
    if kind == "lora":
        killed_after(nursery, kind, output, random.uniform(0.0, 0.4 * seconds))
    else:
        assert killed_while(nursery, kind, output, ".step-*.partial", nth=5)
        left = [path.name for path in (output / "checkpoints").iterdir()]
        assert any(name.startswith(".step-") for name in left), f"killed too late: {left}"
        assert checkpoints.newest(output / "checkpoints")
    assert_same_end(nursery, kind, output, expected, whole)


def group_of(process: int) -> set[int]:
    """The living processes of a run: it is a group of its own, the workers that make its batches included."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == process and state != "Z":
                found.add(int(path.parent.name))
    return found


def test_the_workers_of_a_killed_run_end_with_it(nursery: Nursery, tmp_path: Path) -> None:
    """At once, also those just made: torch's own watch over the run looks every five seconds, and begins late."""
    process = nursery.start("full", tmp_path / "out")
    assert wait_for(lambda: len(group_of(process)) > 1, lambda: not alive(process)), "no workers seen"
    kill(process)
    assert nursery.ended() == -signal.SIGKILL
    end = time.monotonic() + 2
    while (left := group_of(process)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


#: What is written at the end, in its order; manifest.json follows.
ENDINGS = ("model.safetensors", "config.json", "watched.txt", ".manifest.json.*.partial")


@pytest.fixture(scope="module")
def whole_recipe(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The hash and the folder of a whole fine-tuning that was left alone."""
    output = tmp_path_factory.mktemp("recipe") / "whole"
    nursery.start("recipe", output)
    assert nursery.ended() == 0
    return result(output)["hash"], output


def goes_on_to_the_end(nursery: Nursery, output: Path, expected: str) -> None:
    nursery.start("recipe", output, *(("--resume",) if (output / "run.json").exists() else ()))
    assert nursery.ended() == 0
    assert result(output)["hash"] == expected
    assert verify_manifest(output)["report"]["steps"] == result(output)["steps"]
    assert not (output / "checkpoints").exists()


@pytest.mark.parametrize(
    "ending",
    [ENDINGS[1], *(pytest.param(name, marks=pytest.mark.slow) for name in (ENDINGS[0], *ENDINGS[2:]))],
)
def test_killed_while_it_writes_the_result_it_ends_the_same(
    ending: str, nursery: Nursery, tmp_path: Path, whole_recipe: tuple[str, Path]
) -> None:
    expected, whole = whole_recipe
    # A moment of a millisecond: on a busy machine it may pass unseen, and another run has to be tried.
    tries = (tmp_path / f"out{number}" for number in range(8))
    output = next(
        folder
        for folder in tries
        if killed_while(nursery, "recipe", folder, ending, place=".")
        and not (folder / "manifest.json").exists()
    )
    goes_on_to_the_end(nursery, output, expected)
    assert logged_losses(output) == logged_losses(whole)
    written = (output / "manifest.json").stat().st_mtime_ns
    goes_on_to_the_end(nursery, output, expected)
    assert (output / "manifest.json").stat().st_mtime_ns == written, "a finished run is left as it is"


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing(
    nursery: Nursery, tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path, float]]
) -> None:
    """Every other one is aimed into the writing or the removal of a checkpoint."""
    noise = random.Random(20260101)
    kills = aimed = finished = runs = 0
    while kills < 50:
        kind = KINDS[runs % len(KINDS)]
        expected, whole, seconds = uninterrupted(kind)
        output = tmp_path / f"out{runs}"
        runs += 1
        for _ in range(8):
            if kills % 2:
                pattern = noise.choice([".step-*.partial", ".step-*.old.partial"])
                killed = killed_while(nursery, kind, output, pattern, noise.randint(1, 4))
                aimed += killed
            else:
                killed = killed_after(nursery, kind, output, noise.uniform(0.0, 0.4 * seconds))
            kills += killed
            if not killed:
                finished += 1
                break
        assert_same_end(nursery, kind, output, expected, whole)
    print(f"{kills} kills in {runs} runs, {aimed} aimed at checkpoints, {finished} runs ended before a kill")
    assert aimed >= 15


@pytest.mark.slow
def test_whole_fine_tunings_killed_at_random_moments_end_the_same(
    nursery: Nursery, tmp_path: Path, whole_recipe: tuple[str, Path]
) -> None:
    """From loading to the manifest."""
    noise = random.Random(20260102)
    expected, whole = whole_recipe
    started = time.monotonic()
    nursery.start("recipe", tmp_path / "again")
    assert nursery.ended() == 0
    seconds = time.monotonic() - started
    kills = runs = 0
    while kills < 15:
        output = tmp_path / f"out{runs}"
        runs += 1
        for _ in range(5):
            if not killed_after(nursery, "recipe", output, noise.uniform(0.0, 0.7 * seconds)):
                break
            kills += 1
        goes_on_to_the_end(nursery, output, expected)
        assert logged_losses(output) == logged_losses(whole)
    print(f"{kills} kills in {runs} runs")
