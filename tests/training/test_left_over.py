"""Training where the environment names processes that are not there, or an earlier launcher's settings."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import distributed_worker as worker
import pytest
from child_process import TORCH, child_environment, run_python
from launched import launched
from openai_server import free_port

from medchat import launcher

pytestmark = pytest.mark.torch

#: Waits for the other processes, saying after half a second whom for.
WAITING = """
import torch
from medchat import launcher
from medchat.errors import MedchatError
from medchat.training.process_group import process_group
launcher.SILENCE = 0.5
try:
    process_group(torch.device("cpu"), lambda text: print("told:", text))
except MedchatError as error:
    print("failed:", error.what, "|", error.remedy)
"""

#: Trains alone and says what the loss was.
ALONE = """
import sys
from pathlib import Path
import distributed_worker as worker
_, trained, _ = worker.run(Path(sys.argv[1]), "lora")
print(trained.processes)
"""


def program(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = child_environment(**environment)
    done = run_python("-c", code, *words, environment=inherited, imported=TORCH)
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    ("rank", "count", "others"),
    [
        (0, 4, "1–3"),
        pytest.param(0, 2, "1", marks=pytest.mark.slow),
        pytest.param(1, 2, "0", marks=pytest.mark.slow),
    ],
)
def test_a_process_says_whom_it_waits_for_and_ends(rank: int, count: int, others: str) -> None:
    port = free_port()
    started = time.monotonic()
    ended = program(WAITING, **launched(rank, count, port=port), **{launcher.PATIENCE_VARIABLE: "2"})
    lines = [line for line in ended.stdout.splitlines() if line.startswith(("told", "failed"))]
    assert time.monotonic() - started < 60
    assert [line.partition(":")[0] for line in lines] == ["told", "failed"], ended.stdout + ended.stderr
    assert all(f"RANK {others}" in line and "unset RANK" in line for line in lines)
    assert f"127.0.0.1:{port}" in lines[0] and launcher.PATIENCE_VARIABLE in lines[0]


def test_a_run_alone_takes_no_settings_from_what_a_launcher_left(tmp_path: Path) -> None:
    worker.run(tmp_path / "clean", "lora")
    left = {
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "2",
        "PMI_SIZE": "2",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7",
        "ACCELERATE_DYNAMO_BACKEND": "inductor",
    }
    ended = program(ALONE, str(tmp_path / "left"), **left)
    assert ended.returncode == 0 and ended.stdout.splitlines()[-1] == "1", ended.stderr[-2000:]
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
         if '"loss"' in line]
        for name in ("clean", "left")
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and losses[0]
