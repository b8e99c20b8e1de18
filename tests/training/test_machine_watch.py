"""A machine that vanishes is told from a process that is slow: plain processes, without torch."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import machine_member
import pytest
from child_process import child_environment, start_python
from openai_server import free_port
from two_machines import ADDRESSES, TwoMachines

from medchat.launcher import MACHINE_VARIABLE
from medchat.training.machine_watch import break_connections
from medchat.training.network_interface import address_towards

pytest_plugins = ("two_machines",)
LOOPBACK = "127.0.0.1"
#: Seconds after which a machine is lost.
TIMEOUT = 2


def member(rank: int, count: int, port: int, folder: Path) -> subprocess.Popen[bytes]:
    words = ("-m", machine_member.__name__, str(rank), str(count), LOOPBACK, str(port), str(folder))
    environment = child_environment(**{MACHINE_VARIABLE: str(TIMEOUT), "MEDCHAT_LANG": "en"})
    return start_python(*words, environment=environment, stdout=subprocess.PIPE)


@contextmanager
def members(count: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    port = free_port()
    started = [member(rank, count, port, folder) for rank in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], "the process says nothing"
    return process.stdout.readline().decode().strip()


def test_a_process_that_is_stopped_for_longer_than_the_limit_is_not_lost(tmp_path: Path) -> None:
    with members(2, tmp_path) as (first, second):
        assert [line(first), line(second)] == ["all answer"] * 2
        os.kill(second.pid, signal.SIGSTOP)
        time.sleep(1.5 * TIMEOUT)
        os.kill(second.pid, signal.SIGCONT)
        second.kill()
        assert line(first) == "released False"  # "lost 1: …" if the watch had noticed anything before


@pytest.mark.slow
def test_processes_that_wait_for_each_other_are_released_when_the_first_one_has_ended(tmp_path: Path) -> None:
    with members(3, tmp_path) as (first, *others):
        assert [line(other) for other in others] == ["all answer"] * 2
        first.kill()
        assert [line(other) for other in others] == ["released True"] * 2


def test_a_machine_without_a_cable_is_lost_in_time(machines: TwoMachines, tmp_path: Path) -> None:
    words = [sys.executable, "-m", machine_member.__name__]
    environment = child_environment(**{MACHINE_VARIABLE: str(TIMEOUT)})
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *words, str(rank), "2", ADDRESSES[0], "29512", str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        for rank, name in enumerate(machines.names)
    ]
    assert [line(process) for process in started] == ["all answer"] * 2
    with machines.cut():
        cut_at = time.monotonic()
        said = [line(process) for process in started]
        noticed = time.monotonic() - cut_at
    assert TIMEOUT / 2 < noticed < 3 * TIMEOUT
    for text, rank in zip(said, (1, 0), strict=True):
        assert text.startswith(f"lost {rank}: ") and socket.gethostname() in text, said
        assert MACHINE_VARIABLE in text and f" {TIMEOUT} " in text
    for process in started:
        process.communicate()


def test_a_stranger_who_connects_is_turned_away_and_nobody_is_missed(tmp_path: Path) -> None:
    port = free_port()
    first = member(0, 2, port, tmp_path)
    while not (tmp_path / "0").exists():
        time.sleep(0.01)
    listens_at = pickle.loads((tmp_path / "0").read_bytes()).listens_at
    strangers = [socket.create_connection(listens_at, timeout=10) for _ in range(3)]
    for stranger, wrong in zip(strangers, (b"", b"GET / HTTP/1.1\r\n\r\n  ", bytes(20)), strict=True):
        stranger.sendall(wrong)
        stranger.shutdown(socket.SHUT_WR)
    second = member(1, 2, port, tmp_path)
    assert [line(first), line(second)] == ["all answer"] * 2
    for stranger in strangers:
        with stranger, suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    for process in (first, second):
        process.kill()
        process.communicate()


def test_only_connections_to_the_addresses_of_other_machines_are_broken() -> None:
    with (
        socket.create_server(("127.0.0.2", 0)) as others,
        socket.create_server((LOOPBACK, 0)) as own,
        socket.create_server(("127.0.0.2", 0)) as store,
    ):
        ends = [socket.create_connection(server.getsockname(), timeout=10) for server in (others, own, store)]
        accepted = [server.accept()[0] for server in (others, own, store)]
        break_connections({"127.0.0.2"}, kept_port=store.getsockname()[1])
        assert ends[0].recv(1) == b""
        for here, there in zip(ends[1:], accepted[1:], strict=True):
            there.sendall(b"x")
            assert here.recv(1) == b"x"
        # Also where a socket is one of IPv6 that leads to an address of IPv4, as those of torch's store.
        with closing(socket.socket(socket.AF_INET6)) as mapped:
            mapped.settimeout(10)
            mapped.connect(("::ffff:127.0.0.2", others.getsockname()[1]))
            break_connections({"127.0.0.2"})
            assert mapped.recv(1) == b"" and ends[2].recv(1) == b""
        for end in (*ends, *accepted):
            end.close()


def test_the_address_towards_a_machine_is_that_of_the_interface_that_leads_there() -> None:
    assert address_towards((LOOPBACK, 29500)) == LOOPBACK
    assert address_towards(("::1", 29500)) == "::1"
