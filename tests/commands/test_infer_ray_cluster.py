"""`medchat infer --ray` on a real Ray, two of its nodes on this machine, with what may happen to a cluster.

Skipped where Ray is not installed (`pip install 'medchat[ray]'`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_program import Parrot, rows, without_seconds, write_questions

pytest.importorskip("ray", reason="needs Ray: pip install 'medchat[ray]'")

pytestmark = pytest.mark.slow

COUNT = 60
#: Ray reads them when it is imported: no statistics are sent, and nothing listens beyond this machine.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Parrot:
    parrot = Parrot(tmp_path_factory.mktemp("parrot"), seconds=0.4)
    parrot.environment |= QUIET
    return parrot


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl", COUNT)


@pytest.fixture(scope="module")
def by_one_process(parrot: Parrot, questions: Path) -> list[dict[str, object]]:
    output = questions.with_name("one.jsonl")
    assert parrot.infer(questions, output, "--batch-size", "4").returncode == 0
    return without_seconds(rows(output))


@contextmanager
def cluster(parrot: Parrot, *cpus: int) -> Iterator[Any]:
    """Start a cluster with so many CPUs on each node; all nodes are on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in parrot.environment.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0]})
        try:
            for count in cpus[1:]:
                started.add_node(num_cpus=count)
            yield started
        finally:
            started.shutdown()


@pytest.fixture(scope="module")
def two_nodes(parrot: Parrot) -> Iterator[str]:
    with cluster(parrot, 1, 1) as started:
        yield started.address


def start(parrot: Parrot, questions: Path, output: Path, address: str, *more: str) -> subprocess.Popen[str]:
    words = ["--batch-size", "4", "--ray", address, "--workers", "2", *more]
    return parrot.start(questions, output, *words)


def ended(process: subprocess.Popen[str], seconds: float = 90.0) -> str:
    """Wait for the end and return what was printed to stderr."""
    out, err = process.communicate(timeout=seconds)
    assert out == ""
    return err


def wait(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def answers_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def holder(path: Path) -> int | None:
    """Return the process that has the file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return int(link.parts[2])
        except OSError:
            continue
    return None


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_workers_on_two_nodes_give_what_one_process_gives(
    parrot: Parrot, questions: Path, by_one_process: list[dict[str, object]], two_nodes: str, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    process = start(parrot, questions, output, two_nodes)
    said = ended(process)
    assert process.returncode == 0, said
    assert without_seconds(rows(output)) == by_one_process
    assert left_in(tmp_path) == {"answers.jsonl"}
    assert "没有" not in said and "Ray 默认不验证身份" in said and two_nodes in said


def test_a_killed_worker_is_started_again_and_answers_nothing_twice(
    parrot: Parrot, questions: Path, by_one_process: list[dict[str, object]], two_nodes: str, tmp_path: Path
) -> None:
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part-1"
    (parrot.model / "calls.jsonl").unlink(missing_ok=True)
    process = start(parrot, questions, output, two_nodes)
    wait(lambda: answers_in(part) >= 8)
    os.kill(wait(lambda: holder(part)), signal.SIGKILL)
    said = ended(process)
    assert process.returncode == 0, said
    assert "进程 1（" in said and "重新启动" in said
    assert without_seconds(rows(output)) == by_one_process
    asked = sum(len(call["texts"]) for call in parrot.calls())
    assert COUNT <= asked <= COUNT + 4  # the batch that was under way


def test_a_killed_driver_takes_its_workers_along_and_resume_goes_on(
    parrot: Parrot, questions: Path, by_one_process: list[dict[str, object]], two_nodes: str, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    parts = [tmp_path / f"answers.jsonl.part-{rank}" for rank in (0, 1)]
    process = start(parrot, questions, output, two_nodes)
    wait(lambda: all(answers_in(part) >= 4 for part in parts))
    process.kill()
    process.communicate()
    wait(lambda: not any(map(holder, parts)), 20)
    kept = sum(map(answers_in, parts))
    assert 8 <= kept < COUNT and not output.exists()
    (parrot.model / "calls.jsonl").unlink()
    process = start(parrot, questions, output, two_nodes, "--resume")
    said = ended(process)
    assert process.returncode == 0, said
    assert f"已有 {kept} 个回答" in said
    assert without_seconds(rows(output)) == by_one_process
    assert sum(len(call["texts"]) for call in parrot.calls()) == COUNT - kept
    assert left_in(tmp_path) == {"answers.jsonl"}


def test_ctrl_c_stops_the_workers_and_says_how_to_go_on(
    parrot: Parrot, questions: Path, two_nodes: str, tmp_path: Path
) -> None:
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part-1"
    process = start(parrot, questions, output, two_nodes)
    wait(lambda: answers_in(part) >= 4)
    process.send_signal(signal.SIGINT)
    said = ended(process, 30)
    assert process.returncode == 130 and "--resume" in said.splitlines()[-1]
    wait(lambda: holder(part) is None, 20)
    assert answers_in(part) >= 4 and not list(tmp_path.glob(".answers.jsonl.ray-*"))


def test_a_node_that_joins_late_is_used(
    parrot: Parrot, questions: Path, by_one_process: list[dict[str, object]], tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    with cluster(parrot, 0) as started:  # a head that computes nothing, as on many clusters
        process = start(parrot, questions, output, started.address)
        wait(lambda: list(tmp_path.glob(".answers.jsonl.ray-*")))
        time.sleep(3)
        assert not (tmp_path / "answers.jsonl.part-0").exists()
        started.add_node(num_cpus=2)
        said = ended(process)
    assert process.returncode == 0, said
    assert without_seconds(rows(output)) == by_one_process


def test_a_cluster_without_room_says_so_in_the_time_that_is_stated(
    parrot: Parrot, questions: Path, tmp_path: Path
) -> None:
    with cluster(parrot, 0) as started:
        words = ["--ray", started.address]
        ended = parrot.infer(
            questions, tmp_path / "a.jsonl", *words, environment={"MEDCHAT_LAUNCH_TIMEOUT": "3"}
        )
    assert ended.returncode == 1
    assert "3 秒没有地方运行进程 0（空闲：CPU 0/0" in ended.stderr and "ray start" in ended.stderr
    assert left_in(tmp_path) == set()


def test_ray_on_this_machine_alone_listens_on_the_loopback_and_leaves_nothing(
    parrot: Parrot, questions: Path, by_one_process: list[dict[str, object]], tmp_path: Path
) -> None:
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part-0"
    environment = dict.fromkeys(QUIET, "")
    process = parrot.start(
        questions, output, "--batch-size", "4", "--workers", "2", "--ray", environment=environment
    )
    wait(lambda: answers_in(part) >= 1)
    ours = children(process.pid)
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout.splitlines()
    addresses = [line.split()[3] for line in listening if any(f"pid={number}," in line for number in ours)]
    said = ended(process)
    assert process.returncode == 0, said
    assert without_seconds(rows(output)) == by_one_process
    assert addresses and all("127.0.0.1" in address for address in addresses)
    assert not list(Path("/tmp").glob(f"medchat-ray-*/session_*_{process.pid}"))


def children(pid: int) -> set[int]:
    """Return the process and all that it started."""
    tree = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.split()
    pairs = list(zip(map(int, tree[::2]), map(int, tree[1::2]), strict=True))
    found = {pid}
    while more := {child for child, parent in pairs if parent in found} - found:
        found |= more
    return found
