"""How much disk space a run takes, estimated from the model's dimensions before anything is loaded.

A checkpoint holds the trained weights and the optimizer's state. The newest ones and the best one are kept,
and the next is complete before an older one is removed; at the end the result is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch

from medchat.api import DiskEstimate, SFTOptions, SFTSurvey
from medchat.disk import free_space
from medchat.training import checkpoint as checkpoints
from medchat.training.activation_memory import ModelDims
from medchat.training.memory_estimate import optimizer_bytes
from medchat.training.optimizers import precision_of
from medchat.training.schedule import make_schedule

#: Bytes of random generators, scheduler and manifest of a checkpoint; and of log, report and settings.
_SMALL = 1 << 20
#: Files copied from the base into a complete model's result: tokenizer and configuration, no weights.
_WEIGHTS = {".bin", ".safetensors", ".pt", ".pth", ".gguf", ".h5", ".msgpack"}


def estimate_disk(
    shape: ModelDims, options: SFTOptions, survey: SFTSurvey | None, device: torch.device
) -> DiskEstimate:
    """Return the largest size that a run reaches on the disk, and the free space there.

    The checkpoints of a run to be resumed count as free space: they are replaced.
    """
    precision = precision_of(options, device)
    trained = shape.trained(options.method) * precision.weights.itemsize
    checkpoint = trained + optimizer_bytes(shape, options, precision) + _SMALL
    saves = _saves(options, survey)
    kept = min(options.save_total, saves)
    best = int(bool(options.val_size) and saves > kept)
    result = trained + _SMALL + (_vocabulary(options.model) if options.method == "full" else 0)
    writing = checkpoint if saves > kept + best else 0
    parts = {
        "checkpoints": kept * checkpoint,
        "best": best * checkpoint,
        "result": result,
        "writing": max(0, writing - result),
    }
    place, free = free_space(options.output)
    held = _held(options.output / checkpoints.FOLDER_NAME)
    return DiskEstimate({name: size for name, size in parts.items() if size}, str(place), free + held)


def _saves(options: SFTOptions, survey: SFTSurvey | None) -> int:
    """How many checkpoints are written in all; where the data is unknown, more than are kept."""
    if survey is None and not options.max_steps:
        return options.save_total + 2
    records = survey.records if survey else 0
    steps_per_epoch = max(1, math.ceil(records / options.batch_size))
    schedule = make_schedule(options, steps_per_epoch, evaluates=bool(options.val_size))
    return math.ceil(schedule.steps / schedule.saving) if schedule.saving else 0


def _vocabulary(base: Path) -> int:
    return sum(size for path, size in _files(base.glob("*")) if path.suffix not in _WEIGHTS)


def _held(folder: Path) -> int:
    return sum(size for _, size in _files(folder.rglob("*")))


def _files(paths: Iterable[Path]) -> list[tuple[Path, int]]:
    return [(path, path.stat().st_size) for path in paths if path.is_file()]
