"""What started this process: one module knows the variables of every launcher."""

from __future__ import annotations

import os
import re

import pytest
from launched import launch, launched
from locations import ROOT

from medchat import launcher
from medchat.errors import UsageError
from medchat.launcher import Process

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Process()),
        (launched(1, 2), Process(1, 2)),
        # Left behind, and harmless: nobody else is waited for.
        ({"RANK": "0", "WORLD_SIZE": "1"}, Process()),
        ({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}, Process()),
        ({"RANK": "", "WORLD_SIZE": ""}, Process()),
        ({"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}, Process()),
        (STEP, Process(2, 4)),
        # torchrun under srun: torchrun's numbers count.
        ({**STEP, **launched(5, 8)}, Process(5, 8)),
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
    [launched(2, 2), launched("x", 1), launched(0, -1), {**STEP, "SLURM_PROCID": "4"}],
)
def test_variables_that_contradict_each_other_are_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        Process.from_environment(environment, slurm=True)
    names = "SLURM_PROCID SLURM_STEP_NUM_TASKS" if "SLURM_PROCID" in environment else "RANK WORLD_SIZE"
    assert f"unset {names}" in caught.value.remedy


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2"},
        {"RANK": "1"},
        {"RANK": "x", "WORLD_SIZE": "many"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "node1"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": ""},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "29500", "LOCAL_RANK": "0"},
    ],
)
@pytest.mark.parametrize("slurm", [False, True])
def test_several_processes_without_a_place_to_meet_are_left_over(
    environment: dict[str, str], slurm: bool
) -> None:
    with pytest.raises(UsageError) as caught:
        Process.from_environment(environment, slurm=slurm)
    assert all(f"{name}=" in caught.value.what for name in environment)
    assert all(name in caught.value.remedy for name in ("unset", *environment))


@pytest.mark.parametrize(("value", "count"), [("", 1), ("3", 3), ("many", 1), ("0", 1)])
def test_a_count_that_is_none_is_one_process(value: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, 2)
    monkeypatch.setenv("WORLD_SIZE", value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    assert launcher.world_size() == launcher.local_world_size() == count
    assert launcher.local_rank() == 0
    monkeypatch.delenv("MASTER_ADDR")
    assert launcher.world_size() == launcher.local_world_size() == 1 and launcher.local_rank() is None


@pytest.mark.parametrize(
    ("all_of_them", "here", "place"),
    [(2, 1, ("127.0.0.1", 29500)), (8, 4, ("127.0.0.1", 29500)), (2, 2, None), (1, 1, None)],
)
def test_processes_on_one_machine_need_no_place_to_meet(
    all_of_them: int, here: int, place: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, all_of_them)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    assert launcher.meeting_place() == place


def test_only_variables_that_are_there_are_to_be_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of Slurm or Ray that waits has none of torchrun's."""
    assert "unset" not in launcher.waiting_for("1") and "unset" not in launcher.nobody_came("1").remedy
    assert "--resume" in launcher.waiting_for("1")
    launch(monkeypatch, 2)
    assert "unset RANK" in launcher.waiting_for("1") and "unset RANK" in launcher.nobody_came("1").remedy


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1e9", "99999999"])
def test_a_senseless_patience_is_refused_by_name(value: str) -> None:
    with pytest.raises(UsageError, match=f"{launcher.PATIENCE_VARIABLE}={value} "):
        Process.from_environment({launcher.PATIENCE_VARIABLE: value})
    assert launcher.patience({launcher.PATIENCE_VARIABLE: " 7 "}) == 7
    assert launcher.patience({}) == 600


@pytest.mark.parametrize("value", ["0", "1", "-1", "a minute", "86401"])
def test_a_senseless_machine_timeout_is_refused_by_name(value: str) -> None:
    with pytest.raises(UsageError, match=f"{launcher.MACHINE_VARIABLE}={value} ") as caught:
        Process.from_environment({launcher.MACHINE_VARIABLE: value})
    assert caught.value.remedy == f"{launcher.MACHINE_VARIABLE}=60"
    assert launcher.machine_timeout({launcher.MACHINE_VARIABLE: "2"}) == 2
    assert launcher.machine_timeout({}) == 60


def test_what_any_launcher_left_is_gone_where_a_process_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LOCAL_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "PMI_RANK",
        "MASTER_ADDR",
        "ACCELERATE_MIXED_PRECISION",
    ):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    launcher.stand_alone()
    launcher.undo_accelerate_configuration()
    left = {
        name for name in os.environ if name.startswith(("ACCELERATE", "OMPI", "PMI", "MASTER", "LOCAL_R"))
    }
    assert left == {"ACCELERATE_TORCH_DEVICE"}


def test_no_other_module_reads_a_launchers_variables() -> None:
    variable = re.compile(
        r"environ\w*(?:\.get\(|\.pop\(|\[)\s*\"(?:\w*RANK|\w*WORLD_SIZE|ACCELERATE_\w+|SLURM_\w+)\""
    )
    modules = [*(ROOT / "medchat").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    reading = {path.name for path in modules if variable.search(path.read_text(encoding="utf-8"))}
    assert reading == {"launcher.py"}
