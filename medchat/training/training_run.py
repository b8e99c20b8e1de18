"""What belongs to one training run, for the trainer, its callbacks and the figures at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medchat.api import SFTOptions, SFTWatcher
from medchat.training.data_loader import BatchSampler, Collator
from medchat.training.features import Feature
from medchat.training.metrics_log import StepLog
from medchat.training.run_folder import RunFolder
from medchat.training.schedule import Schedule
from medchat.training.single_process import ProcessGroup


@dataclass(frozen=True)
class TrainingRun:
    """Everything about a run except the model."""

    features: Sequence[Feature]
    held_out: Sequence[Feature]
    collate: Collator
    options: SFTOptions
    folder: RunFolder
    watch: SFTWatcher
    order: BatchSampler
    schedule: Schedule
    processes: ProcessGroup
    log: StepLog
