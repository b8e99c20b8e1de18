"""Two network namespaces of Linux as two machines: each has its own loopback and one cable to the other.

They share files, as machines with a network file system do. Making them takes root and iproute2; a test module that
states `pytest_plugins = ("two_machines",)` gets the fixture `machines`, which skips with the reason elsewhere.
(PYTEST_DONT_REWRITE: imported by name as well as as a plugin.)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

#: The addresses of the two, and the port where the processes meet.
ADDRESSES, PORT = ("10.77.0.1", "10.77.0.2"), 29511


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class TwoMachines:
    """The names of the two namespaces."""

    names: tuple[str, str]

    def torchrun(
        self, machine: int, *words: str, environment: Mapping[str, str], said: Path
    ) -> subprocess.Popen[bytes]:
        """Start torchrun, and under it one process, as machine 0 or 1; `said` receives what it prints."""
        place = ["--nnodes", "2", "--node-rank", str(machine), "--nproc-per-node", "1"]
        meeting = ["--master-addr", ADDRESSES[0], "--master-port", str(PORT)]
        launch = [sys.executable, "-m", "torch.distributed.run", *place, *meeting, *words]
        with said.open("wb") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[machine], *launch],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @contextmanager
    def cut(self) -> Iterator[None]:
        """While inside, the cable is pulled out."""
        ip("-n", self.names[0], "link", "set", "cable", "down")
        try:
            yield
        finally:
            ip("-n", self.names[0], "link", "set", "cable", "up")

    def kill_everything_on(self, machine: int) -> None:
        """Kill all processes of one machine at once."""
        self._signal(machine, signal.SIGKILL)

    @contextmanager
    def stopped(self, machine: int) -> Iterator[None]:
        """While inside, all processes of one machine are stopped; the machine itself runs."""
        self._signal(machine, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(machine, signal.SIGCONT)

    def _signal(self, machine: int, number: signal.Signals) -> None:
        listed = subprocess.run(["ip", "netns", "pids", self.names[machine]], capture_output=True, text=True)
        for pid in listed.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)


@pytest.fixture
def machines() -> Iterator[TwoMachines]:
    """Make the two machines, and remove them with whatever still runs there."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces take root and iproute2")
    names = tuple(f"medchat-{os.getpid()}-{number}" for number in (0, 1))
    made = TwoMachines((names[0], names[1]))
    try:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "cable", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield made
    finally:
        for number, name in enumerate(names):
            made.kill_everything_on(number)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def wait_until_written(path: Path, lines: int = 1, seconds: float = 300.0) -> None:
    """Wait until the file has so many lines."""
    deadline = time.monotonic() + seconds
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < deadline, f"{path} was waited for in vain"
        time.sleep(0.05)
