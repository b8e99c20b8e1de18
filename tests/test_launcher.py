"""What started this process: one module knows the variables of every launcher."""

from __future__ import annotations

import re

import pytest
from locations import ROOT

from medchat import launcher
from medchat.errors import UsageError
from medchat.launcher import Process

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Process()),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Process(1, 2)),
        (STEP, Process(2, 4)),
        # torchrun under srun: torchrun's numbers count.
        ({**STEP, "RANK": "5", "WORLD_SIZE": "8"}, Process(5, 8)),
        # A job's own shell, where nothing was started yet.
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, Process()),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}, Process()),
        # An interactive shell: a step of one task in a job that asked for four.
        ({**STEP, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Process()),
        ({**STEP, "MASTER_ADDR": "node1"}, Process()),
    ],
)
def test_the_place_of_a_process_is_its_launchers(environment: dict[str, str], expected: Process) -> None:
    assert Process.from_environment(environment, slurm=True) == expected


def test_training_takes_no_place_from_slurm_alone() -> None:
    assert Process.from_environment(STEP) == Process()


@pytest.mark.parametrize(
    "environment",
    [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"WORLD_SIZE": "-1"}, {**STEP, "SLURM_PROCID": "4"}],
)
def test_variables_that_contradict_each_other_are_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        Process.from_environment(environment, slurm=True)
    names = "SLURM_PROCID SLURM_STEP_NUM_TASKS" if "SLURM_PROCID" in environment else "RANK WORLD_SIZE"
    assert f"unset {names}" in caught.value.remedy


@pytest.mark.parametrize(("value", "count"), [("", 1), ("3", 3), ("many", 1), ("0", 1)])
def test_a_count_that_is_none_is_one_process(value: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    assert launcher.world_size() == launcher.local_world_size() == count
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert launcher.local_rank() is None


def test_no_other_module_reads_a_launchers_variables() -> None:
    variable = re.compile(
        r"environ\w*(?:\.get\(|\.pop\(|\[)\s*\"(?:\w*RANK|\w*WORLD_SIZE|ACCELERATE_\w+|SLURM_\w+)\""
    )
    modules = [*(ROOT / "medchat").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    reading = {path.name for path in modules if variable.search(path.read_text(encoding="utf-8"))}
    assert reading == {"launcher.py"}
