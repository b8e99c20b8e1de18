"""Which processes a run consists of: this one, or those that a launcher started together."""

from __future__ import annotations

from functools import cache

import torch

from medchat import launcher
from medchat.language import say
from medchat.training.distributed import FsdpGroup
from medchat.training.single_process import ProcessGroup


def process_group(device: torch.device) -> ProcessGroup:
    """Return the processes of this run: as many as a launcher started (WORLD_SIZE), one without."""
    if launcher.world_size() == 1:
        return ProcessGroup()
    return _several(device)


def launcher_note() -> str:
    """Return what a user of a launcher that started fewer processes than requested must know, else ""."""
    if launcher.world_size() == 1 and launcher.accelerate_on_cpu():
        return say(
            "accelerate launch --cpu 只启动了一个进程，不论 --num_processes 是多少；要用多个进程请用 torchrun",
            "accelerate launch --cpu started one process, whatever --num_processes said; torchrun starts several",
        )
    return ""


@cache
def _several(device: torch.device) -> ProcessGroup:
    return FsdpGroup(device)
