"""A process that watches the machines of a run and says what it sees, for tests of `MachineWatch`.

machine_member.py RANK COUNT ADDRESS PORT FOLDER      the processes exchange what they say of themselves in FOLDER

The last two are connected otherwise too, as processes that train are. They print "all answer" and, once that connection
is broken, whether a machine is lost: "lost RANKS: why", or whether whatever waits was to end: "released True".
"""

from __future__ import annotations

import pickle
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from medchat.training.machine_watch import MachineWatch


def gather_in(folder: Path, rank: int, count: int, value: Any) -> list[Any]:
    """Return the values of all processes by rank."""
    written = folder / f"{rank}.new"
    written.write_bytes(pickle.dumps(value))
    written.rename(folder / str(rank))
    paths = [folder / str(number) for number in range(count)]
    while not all(path.exists() for path in paths):
        time.sleep(0.01)
    return [pickle.loads(path.read_bytes()) for path in paths]


def connection_to(address: str, port: int, *, listens: bool) -> socket.socket:
    """Return a connection between two processes, one of which listens."""
    if listens:
        with socket.create_server((address, port)) as server:
            return server.accept()[0]
    for _ in range(500):
        try:
            return socket.create_connection((address, port))
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise TimeoutError


def main() -> None:
    rank, count, port, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4]), Path(sys.argv[5])
    aborted = threading.Event()
    watch = MachineWatch(
        (sys.argv[3], port), rank, lambda value: gather_in(folder, rank, count, value), aborted.set
    )
    if rank < count - 2:
        threading.Event().wait()
    between = connection_to(sys.argv[3], port, listens=rank == count - 2)
    print("all answer", flush=True)
    assert between.recv(1) == b""
    released = aborted.wait(1)
    print(f"lost {': '.join(watch.lost)}" if watch.lost else f"released {released}", flush=True)


if __name__ == "__main__":
    main()
