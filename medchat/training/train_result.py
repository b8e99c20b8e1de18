"""The figures of a training run: steps, losses, time, parameters and peak memory."""

from __future__ import annotations

import gc
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medchat.inference.device import device_of
from medchat.regular_files import SYSTEM_BYTES, read_regular
from medchat.training.checkpoint import TrainingCheckpoint
from medchat.training.training_run import TrainingRun


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The figures of a training run, by the names of `SFTReport`: `SFTReport(**asdict(trained), ...)`.

    Losses are means per label token, of the first and last logged steps. `tokens` counts all that was trained
    on, without padding. With held-out data the weights are those of `best_step`; `best_loss` and
    `loss_before` (before training) are held-out losses.
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


def train_result(
    model: nn.Module,
    run: TrainingRun,
    steps: int,
    best_step: int,
    best_loss: float | None,
    start: TrainingCheckpoint | None,
) -> TrainResult:
    """Return the figures of a run from step `start` to `steps`."""
    gc.collect()
    counters = run.log.counters
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return TrainResult(
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
        peak_bytes=_peak_bytes(device_of(model)),
        processes=run.processes.count,
    )


def _peak_bytes(device: torch.device) -> int:
    """The peak memory: on a GPU of tensors, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if os.name != "posix":
        return 0
    import resource

    status = Path("/proc/self/status")
    text = read_regular(status, SYSTEM_BYTES).decode("ascii", "replace") if status.exists() else ""
    if found := re.search(r"VmHWM:\s+(\d+) kB", text):
        # On Linux `getrusage` may return the peak of the process that started this one.
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
