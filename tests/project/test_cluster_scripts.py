"""The scripts for clusters, with stand-ins for the programs of Slurm and vLLM: what they start, and where."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from locations import ROOT
from script_runs import flag, program, run

VARIABLES = (
    *("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"),
    *("OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK"),
)
#: Prints the variables above and its words, a line each.
SHOWING = "; ".join((*(f'echo "{name}=${{{name}-}}"' for name in VARIABLES), 'printf "%s\\n" "$@"'))


def started(output: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables and the words of the last program that was started."""
    lines = output.splitlines()
    return dict(line.split("=", 1) for line in lines[: len(VARIABLES)]), lines[len(VARIABLES) :]


def path_to(folder: Path) -> str:
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_each_task_of_a_job_is_started_by_srun_with_its_share_of_the_cores(tmp_path: Path) -> None:
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_NTASKS": "3", "SLURM_CPUS_PER_TASK": "8"}
    folder = program(tmp_path / "bin", SHOWING)
    program(folder, 'shift; exec "$@"', "srun")
    words = ("--data", "two words.json")
    ended = run("slurm_infer.sh", *words, folder=tmp_path, path=path_to(folder), environment=slurm)
    assert ended.returncode == 0, ended.stderr
    variables, call = started(ended.stdout)
    assert variables["OMP_NUM_THREADS"] == variables["SRUN_CPUS_PER_TASK"] == "8"
    assert call == ["infer", *words]


def test_outside_a_job_the_scripts_say_how_they_are_started(tmp_path: Path) -> None:
    for name in ("slurm_infer.sh", "slurm_sft.sh"):
        ended = run(
            name, folder=tmp_path, path=path_to(tmp_path), environment={"SLURM_SUBMIT_DIR": str(ROOT)}
        )
        assert ended.returncode != 0 and "sbatch" in ended.stderr


def test_each_node_of_a_job_runs_torchrun_with_its_number(tmp_path: Path) -> None:
    folder = program(tmp_path / "bin", "exit 9")
    program(folder, 'printf "node-a\\nnode-b\\n"', "scontrol")
    program(folder, 'SLURM_NODEID=1 exec "$@"', "srun")
    program(folder, SHOWING, "torchrun")
    slurm = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
        "OMP_NUM_THREADS": "",
    }
    program(folder, "echo 32", "nproc")
    words = ("--data", "two words.json")
    ended = run("slurm_sft.sh", *words, folder=tmp_path, path=path_to(folder), environment=slurm)
    assert ended.returncode == 0, ended.stderr
    variables, call = started(ended.stdout)
    assert (variables["SRUN_CPUS_PER_TASK"], variables["OMP_NUM_THREADS"]) == ("32", "8")
    told = {
        name: flag(call, f"--{name}") for name in ("nnodes", "node-rank", "nproc-per-node", "master-addr")
    }
    assert told == {"nnodes": "2", "node-rank": "1", "nproc-per-node": "4", "master-addr": "node-a"}
    assert call[call.index("medchat") :] == ["medchat", "sft", *words]


@pytest.mark.parametrize(
    ("cores", "processes", "given", "threads"),
    [(16, 2, "", "8"), (7, 2, "", "3"), (2, 4, "", "1"), (16, 1, "", "16"), (16, 2, "5", "5")],
)
def test_each_process_of_torchrun_gets_its_share_of_the_cores(
    tmp_path: Path, cores: int, processes: int, given: str, threads: str
) -> None:
    folder = program(tmp_path / "bin", "exit 9")
    program(folder, f"echo {cores}", "nproc")
    program(folder, SHOWING, "torchrun")
    asked = {"NPROC": str(processes), "NNODES": "2", "OMP_NUM_THREADS": given}
    ended = run("sft_on_node.sh", folder=tmp_path, path=path_to(folder), environment=asked)
    assert started(ended.stdout)[0]["OMP_NUM_THREADS"] == threads, ended.stderr


def test_the_file_for_rented_machines_starts_the_same(tmp_path: Path) -> None:
    task = yaml.safe_load((ROOT / "scripts" / "skypilot_sft.yaml").read_text(encoding="utf-8"))
    folder = program(tmp_path / "bin", "exit 9")
    program(folder, SHOWING, "torchrun")
    sky = {
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NUM_GPUS_PER_NODE": "4",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }
    ended = subprocess.run(
        ["bash", "-e", "-c", task["run"]],
        cwd=ROOT,
        env={**os.environ, "PATH": path_to(folder), **task["envs"], **sky},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    _, call = started(ended.stdout)
    assert [flag(call, f"--{name}") for name in ("nnodes", "node-rank", "master-addr")] == [
        "2",
        "1",
        "10.0.0.1",
    ]
    assert [flag(call, f"--{name}") for name in ("backbone", "data", "output")] == [
        "llama",
        "train.json",
        "output/run",
    ]


def test_vllm_serves_on_this_machine_alone_and_its_absence_is_said(tmp_path: Path) -> None:
    plain = "/usr/bin:/bin"
    ended = run("vllm.sh", "merged", folder=tmp_path, path=plain)
    assert ended.returncode == 3 and "pip install vllm" in ended.stderr
    folder = program(tmp_path / "bin", 'printf "%s\\n" "$VLLM_NO_USAGE_STATS" "$@"', "vllm")
    ended = run("vllm.sh", "the models/merged", "8123", folder=tmp_path, path=f"{folder}:{plain}")
    assert ended.returncode == 0, ended.stderr
    private, *call = ended.stdout.splitlines()
    assert private == "1" and call[:2] == ["serve", "the models/merged"]
    assert (flag(call, "--host"), flag(call, "--port")) == ("127.0.0.1", "8123")
    assert "--model http://127.0.0.1:8123/v1#merged" in ended.stderr
