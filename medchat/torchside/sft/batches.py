"""Which examples each training batch holds, and how a batch becomes the model's inputs.

The order is a function of the seed and the epoch alone: no state of it needs to be kept, and any number
of processes learns from the same examples at the same step.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medchat.torchside.sft.features import Feature
from medchat.torchside.sft.label_loss import NO_LABEL
from medchat.torchside.sft.length_order import LengthOrder

#: Of prctl(2).
_SIGNAL_AT_PARENTS_DEATH = 1
#: Makes the model's inputs of some features: tensors by argument name, `labels` [B, T] among them, not
#: shifted, `NO_LABEL` where there is none. The rows may come in another order than the features.
Collator = Callable[[Sequence[Feature]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Which examples each micro-batch of each process holds. `batch_size` is over all processes.

    `lengths` are of the examples, in tokens. A step's examples are the same for any number of processes.
    """

    lengths: Sequence[int]
    batch_size: int
    micro_batch_size: int
    processes: int
    seed: int
    grouped: bool

    @property
    def accumulation(self) -> int:
        """How many micro-batches each process adds up in one step."""
        return self.batch_size // (self.micro_batch_size * self.processes)

    @property
    def steps(self) -> int:
        """Optimizer steps in one epoch; the last may hold fewer examples."""
        return math.ceil(len(self.lengths) / self.batch_size)

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one process in one epoch."""
        full, rest = divmod(len(self.lengths), self.batch_size)
        return full * self.accumulation + math.ceil(rest / (self.micro_batch_size * self.processes))

    def epoch(self, number: int) -> list[list[int]]:
        """Return the examples of each optimizer step of an epoch."""
        order = LengthOrder(self.lengths, self.batch_size, self.seed, group=self.grouped)
        order.set_epoch(number)
        indices, size = list(order), self.batch_size
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def of_process(self, number: int, process: int) -> Iterator[list[int]]:
        """Give one process's micro-batches of an epoch: as many as each other's, some empty at the end."""
        micro, at_once = self.micro_batch_size, self.micro_batch_size * self.processes
        for step in self.epoch(number):
            for start in range(0, len(step), at_once):
                at = start + process * micro
                yield step[at : at + micro]


class EpochBatches(Sampler[list[int]]):
    """One process's micro-batches of the epoch that is set."""

    def __init__(self, order: BatchOrder, process: int) -> None:
        self._order = order
        self._process = process
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is of, from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return self._order.of_process(self._epoch, self._process)

    def __len__(self) -> int:
        return self._order.micro_batches


class BatchLoader(DataLoader[tuple[int, Feature]]):
    """Batches in their order, collated here or by `workers` processes."""

    def __init__(
        self,
        features: Sequence[Feature],
        batches: EpochBatches,
        collate: LabelBatches,
        workers: int,
        pin: bool,
    ) -> None:
        super().__init__(
            _Indexed(features),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin,
            worker_init_fn=partial(_begin_worker, os.getpid()),
            # Its own: the seeds it draws for workers would otherwise move what dropout draws.
            generator=torch.Generator().manual_seed(0),
        )

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is of, from 0."""
        assert isinstance(self.batch_sampler, EpochBatches)
        self.batch_sampler.set_epoch(epoch)


class LabelBatches:
    """A family's collator, and beside its tensors what training needs to know of the batch."""

    def __init__(self, collate: Collator, features: Sequence[Feature]) -> None:
        self._collate = collate
        self._features = features

    def __call__(self, rows: Sequence[tuple[int, Feature]]) -> dict[str, Tensor]:
        """Return the collator's tensors, `shift_labels` [B, T], `rows` (indices) and `tokens` (a count)."""
        batch = dict(self._collate([feature for _, feature in rows] or self._features[:1]))
        if not rows:
            # This process has nothing left to learn from in this step; it still computes with the others.
            batch["labels"] = torch.full_like(batch["labels"], NO_LABEL)
        # The Trainer counts label tokens over an accumulated batch in these.
        batch["shift_labels"] = shifted(batch["labels"])
        batch["rows"] = torch.tensor([index for index, _ in rows], dtype=torch.long)
        batch["tokens"] = torch.tensor(sum(feature.length for _, feature in rows))
        return batch


class _Indexed(Dataset[tuple[int, Feature]]):
    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> tuple[int, Feature]:
        return index, self._features[index]


def shifted(labels: Tensor) -> Tensor:
    """Return labels [B, T] moved one to the left: each position's own next token."""
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=NO_LABEL)


def _begin_worker(run: int, worker: int) -> None:
    """Leave signals to the run (process `run`), which decides when its workers end, and end with it.

    Ctrl-C and a closing terminal reach every process. torch's own watch over the run begins later: a worker
    whose run was killed in its first moment would wait for ever.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if os.getppid() != run:
        os._exit(1)
