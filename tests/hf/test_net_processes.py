"""A net of one's own that two processes train ends as that of one."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from byte_nets import AttendingBackbone
from child_process import TORCH, child_environment, start_python
from launched import launched
from net_training import data, sft
from openai_server import free_port
from sft_watcher import Watcher

pytestmark = [pytest.mark.torch, pytest.mark.slow]
RUN = """
import sys
from pathlib import Path
from byte_nets import AttendingBackbone
from net_training import data, sft
from sft_watcher import Watcher
given = sft(Path(sys.argv[1]), Path(sys.argv[2]), method=sys.argv[3], num_epochs=4, learning_rate=0.003)
AttendingBackbone().recipes[given.method].run(data(), given, Watcher())
"""


@pytest.mark.parametrize(
    ("method", "written"), [("full", "model.safetensors"), ("lora", "adapter_model.safetensors")]
)
def test_two_processes_write_what_one_does(tmp_path: Path, method: str, written: str) -> None:
    base, alone, together = (tmp_path / name for name in ("base", "alone", "together"))
    AttendingBackbone().tiny(base)
    given = sft(base, alone, method=method, num_epochs=4, learning_rate=0.003)
    AttendingBackbone().recipes[method].run(data(), given, Watcher())
    port = free_port()
    processes = [
        start_python(
            *("-c", RUN, str(base), str(together), method),
            environment=child_environment(
                **launched(rank, 2, port=port), MEDCHAT_HOME=str(tmp_path / "home")
            ),
            imported=TORCH,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=120)[1].decode(), processes))
    assert [process.returncode for process in processes] == [0, 0], said

    one, two = losses(alone), losses(together)
    assert len(one) == len(two) == 4 and one[-1] < one[0] - 0.01
    # Not the weights: where a gradient is rounding alone, Adam takes a whole step in either direction.
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=5e-3)
    assert (together / written).is_file()


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if "grad_norm" in row]
