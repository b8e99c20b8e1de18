"""Whether the machines of a run still answer: one that loses its power or its cable closes no connection.

Every process keeps one connection with the first process, over which nothing is sent. The operating systems at its
two ends probe it (TCP keepalive), so that a process which is slow, busy or stopped counts as there for as long as its
machine runs. The connections of training itself cannot tell: data that is not acknowledged is sent again for a
quarter of an hour, and what is waited for may take two hours to come.
"""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat import launcher
from medchat.language import say
from medchat.training.network_interface import address_towards, own_addresses

#: How often a connection is probed in vain before it is given up.
_PROBES = 5
#: Seconds within which whoever connects has to say who it is.
_INTRODUCTION = 5.0
#: Seconds that a process has to notice by itself that the first one has ended.
_FAREWELL = 5.0
_TOKEN_BYTES, _RANK_BYTES = 16, 4
#: How an IPv4 address begins where a socket is one of IPv6.
_MAPPED = "::ffff:"


@dataclass(frozen=True, slots=True)
class _Member:
    """What a process says of itself: its machine, its addresses there and, if it is the first, where it listens."""

    machine: str
    addresses: tuple[str, ...]
    listens_at: tuple[str, int] = ("", 0)
    token: bytes = b""


class MachineWatch:
    """Watches the other machines from a thread. Made by every process of the run at the same time.

    When one is lost, the connections to all others are broken and `abort` is called, so that a process that waits for
    others fails: the first process where any machine is lost, another where that of the first process is, or where
    the first process has ended. One that needs nobody any more goes on.
    """

    def __init__(
        self,
        place: tuple[str, int],
        rank: int,
        gather: Callable[[Any], list[Any]],
        abort: Callable[[], None] = lambda: None,
    ) -> None:
        """`place`: host and port where the processes meet; `gather` returns every process's value, by rank.

        Raises OSError if the connections are not made within `launcher.patience` seconds.
        """
        #: The ranks that are lost, and why; None while all machines answer.
        self.lost: tuple[str, str] | None = None
        self._rank, self._abort, self._store_port = rank, abort, place[1]
        self._seconds = launcher.machine_timeout()
        self._members, self._others = _connect(place, rank, gather)
        for connection in self._others:
            connection.settimeout(None)
            _probe(connection, self._seconds)
        threading.Thread(target=self._watch, name="watch-machines", daemon=True).start()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for other in self._others:
                selector.register(other, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    connection: Any = key.fileobj
                    try:
                        if connection.recv(1):
                            continue
                    except ConnectionError:
                        pass  # the process was killed
                    except OSError:
                        return self._give_up(self._others[connection])
                    selector.unregister(connection)
                    self._take_leave(self._others[connection])
        return None

    def _take_leave(self, rank: int) -> None:
        """A process has ended. Whoever needs it notices by itself, unless it waits for somebody else."""
        if rank == 0:
            time.sleep(_FAREWELL)
            self._release(kept_port=self._store_port)

    def _give_up(self, rank: int) -> None:
        """The machine of that process is lost."""
        machine, addresses = self._members[rank].machine, self._members[rank].addresses
        ranks = [number for number, member in enumerate(self._members) if member.addresses == addresses]
        variable, seconds = launcher.MACHINE_VARIABLE, self._seconds
        reason = say(
            f"机器 {machine} 已有 {seconds} 秒没有应答（{variable}）",
            f"the machine {machine} has not answered for {seconds} seconds ({variable})",
        )
        self.lost = ", ".join(map(str, ranks)), reason
        self._release()

    def _release(self, kept_port: int = 0) -> None:
        """Let what waits for other processes fail."""
        others = [member for rank, member in enumerate(self._members) if rank != self._rank]
        break_connections({address for member in others for address in member.addresses}, kept_port)
        self._abort()


def _connect(
    place: tuple[str, int], rank: int, gather: Callable[[Any], list[Any]]
) -> tuple[list[_Member], dict[socket.socket, int]]:
    """Return all members by rank, and the connections of this one by the rank at the other end."""
    until = time.monotonic() + launcher.patience()
    machine, addresses = socket.gethostname(), own_addresses(place)
    if rank == 0:
        own, token = address_towards(place), secrets.token_bytes(_TOKEN_BYTES)
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        with closing(socket.create_server((own, 0), family=family)) as door:
            members = gather(_Member(machine, addresses, door.getsockname()[:2], token))
            return members, _admit(door, len(members) - 1, token, until)
    members = gather(_Member(machine, addresses))
    first = members[0]
    connection = socket.create_connection(first.listens_at, timeout=until - time.monotonic())
    connection.sendall(first.token + rank.to_bytes(_RANK_BYTES))
    return members, {connection: 0}


def _admit(door: socket.socket, count: int, token: bytes, until: float) -> dict[socket.socket, int]:
    """Accept the connections of `count` other processes. Whoever does not know the token is turned away."""
    admitted: dict[socket.socket, int] = {}
    while len(admitted) < count:
        door.settimeout(max(until - time.monotonic(), 0.001))
        connection, _ = door.accept()
        said = _introduction(connection)
        if hmac.compare_digest(said[:_TOKEN_BYTES], token):
            admitted[connection] = int.from_bytes(said[_TOKEN_BYTES:])
        else:
            connection.close()
    return admitted


def _introduction(connection: socket.socket) -> bytes:
    """Return what is said first over a connection: token and rank, or less."""
    said, until = b"", time.monotonic() + _INTRODUCTION
    with suppress(OSError):
        while left := _TOKEN_BYTES + _RANK_BYTES - len(said):
            connection.settimeout(max(until - time.monotonic(), 0.001))
            more = connection.recv(left)
            if not more:
                break
            said += more
    return said


def _probe(connection: socket.socket, seconds: int) -> None:
    """Have the system give the connection up once nothing at its other end has answered for so many seconds."""
    interval = max(1, seconds // (_PROBES + 1))
    idle: int = getattr(socket, "TCP_KEEPALIVE", 0) or socket.TCP_KEEPIDLE  # macOS, Linux
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, idle, interval)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(1, seconds // interval - 1))


def break_connections(addresses: Collection[str], kept_port: int = 0) -> None:
    """Break this process's TCP connections to those addresses, but for those to port `kept_port` there.

    Whoever reads from one or writes to it gets an error at once: gloo has no other way to end what it waits for.
    """
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as connection:
                    host, port = _other_end(connection)
                    if host in addresses and port != kept_port:
                        connection.shutdown(socket.SHUT_RDWR)


def _other_end(connection: socket.socket) -> tuple[str, int]:
    """Return address and port at the other end, "" and 0 of what is no TCP. Raises OSError if there is none."""
    if connection.type != socket.SOCK_STREAM or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return "", 0
    host, port = connection.getpeername()[:2]
    return host.removeprefix(_MAPPED), port
