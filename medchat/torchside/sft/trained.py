"""What training did, in figures."""

from __future__ import annotations

import gc
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from medchat.torchside.sft.checkpoints import Checkpoint
from medchat.torchside.sft.trainer import Run


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did, by the names of `SFTReport`: `SFTReport(**asdict(trained), ...)`.

    Losses are means per label token, of the first and last logged steps. `tokens` counts all that was
    learned from, padding left out. The weights are those of `best_step` where something was held out;
    `best_loss` and, of what training started from, `loss_before` are held-out losses.
    """

    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    tokens: int = 0
    best_step: int = 0
    best_loss: float | None = None
    loss_before: float | None = None
    stopped_early: bool = False
    resumed_from: int = 0
    trainable_parameters: int = 0
    parameters: int = 0
    peak_bytes: int = 0
    processes: int = 1


def trained_of(
    model: PreTrainedModel,
    run: Run,
    steps: int,
    best_step: int,
    best_loss: float | None,
    start: Checkpoint | None,
) -> Trained:
    """Return what a run did that ended at `steps`, having begun at `start`."""
    gc.collect()
    counters = run.log.counters
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Trained(
        steps=steps,
        first_loss=math.nan if counters.first_loss is None else counters.first_loss,
        last_loss=math.nan if counters.last_loss is None else counters.last_loss,
        seconds=run.log.seconds,
        tokens=counters.tokens,
        best_step=best_step,
        best_loss=best_loss,
        loss_before=counters.loss_before,
        stopped_early=counters.stopped_early,
        resumed_from=start.step if start else 0,
        trainable_parameters=sum(size for size, trained in sizes if trained),
        parameters=sum(size for size, _ in sizes),
        peak_bytes=_peak_bytes(model.device),
        processes=run.processes.count,
    )


def _peak_bytes(device: torch.device) -> int:
    """The most memory ever held at once: on a GPU by tensors, else by this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if os.name != "posix":
        return 0
    import resource

    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))):
        # What `getrusage` tells on Linux may be the peak of whoever started this process.
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
