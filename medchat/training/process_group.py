"""The processes of a run: this one alone, or those that a launcher started together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from medchat import launcher
from medchat.language import say
from medchat.training.distributed import FsdpGroup
from medchat.training.network_interface import listen_towards
from medchat.training.single_process import ProcessGroup

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
        if place := launcher.meeting_place():
            listen_towards(place)
        with _telling(tell or (lambda text: None)):
            _groups[device] = FsdpGroup(device)
    return _groups[device]


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
