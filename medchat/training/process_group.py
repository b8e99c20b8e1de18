"""The processes of a run: this one alone, or those that a launcher started together."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from medchat import launcher
from medchat.language import say
from medchat.training.distributed import FsdpGroup
from medchat.training.single_process import ProcessGroup

#: Asks Linux for the address of a network interface.
_SIOCGIFADDR = 0x8915
#: Initialised once per process.
_groups: dict[torch.device, ProcessGroup] = {}


def process_group(device: torch.device, tell: Callable[[str], None] | None = None) -> ProcessGroup:
    """Return the processes of this run: as many as a launcher started (WORLD_SIZE), one without a launcher.

    `tell` is called, from another thread, if the rendezvous takes long. Raises MedchatError if it fails.
    Variables left by an earlier launcher are removed from the environment.
    """
    launcher.undo_accelerate_configuration()
    if launcher.world_size() == 1:
        launcher.stand_alone()
        return ProcessGroup()
    if device not in _groups:
        _listen_towards_the_others()
        with _telling(tell or (lambda text: None)):
            _groups[device] = FsdpGroup(device)
    return _groups[device]


def _listen_towards_the_others() -> None:
    """Have gloo use the network interface that leads to the other machines, unless the user has named one.

    By itself it uses the one that has the address of this machine's name: on many systems that is the loopback, where
    no other machine can come.
    """
    place = launcher.meeting_place()
    if place is None or sys.platform != "linux":
        return
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing: it looks up the route
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            if _address_of(name, probe) == own:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _address_of(interface: str, probe: socket.socket) -> bytes:
    """Return the IPv4 address of a network interface, b"" if it has none."""
    with suppress(OSError):
        asked = struct.pack("256s", os.fsencode(interface)[:15])
        return fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, asked)[20:24]
    return b""


@contextmanager
def _telling(tell: Callable[[str], None]) -> Iterator[None]:
    timer = threading.Timer(launcher.SILENCE, lambda: tell(launcher.waiting_for(launcher.other_ranks())))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def launcher_note() -> str:
    """Return a warning if a launcher started fewer processes than requested, else ""."""
    if launcher.world_size() == 1 and launcher.accelerate_on_cpu():
        return say(
            "accelerate launch --cpu 只启动了一个进程，不论 --num_processes 是多少；要用多个进程请用 torchrun",
            "accelerate launch --cpu started one process, whatever --num_processes said; torchrun starts several",
        )
    return ""
