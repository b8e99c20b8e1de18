"""Which examples each training batch holds, and how a batch is collated into the model's inputs.

The order is a function of the seed and the epoch alone: no state has to be saved, and any number of processes
trains on the same examples at the same step.
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

from medchat.training.features import Feature
from medchat.training.fused_loss import NO_LABEL

# The order in which a run sees its records: optimizer steps of similar lengths, the steps in random order.
#
# This removes nearly all padding: 0.95 of the tokens are real at batch 8, 0.70 without
# (docs/specs/training.md, "Throughput"). Which records make up a step depends on the seed, the epoch and the
# effective batch alone: not on micro batches, nor on the number of processes, nor on any generator's state.
# So these may change when a run is resumed.

#: Records are sorted by length within windows of this many steps: large enough for similar lengths, small
#: enough that each epoch combines different records.
WINDOW = 50


class LengthSampler(Sampler[int]):
    """Indices of records, epoch by epoch; each run of `step` indices is one optimizer step.

    Within a step the longest come first, so that its micro batches, on one process or on several, hold
    similar lengths. Without `group` the order is random.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int, *, group: bool = True) -> None:
        self._lengths, self._step, self._seed, self._group = list(lengths), step, seed, group
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield every index once."""
        random = torch.Generator().manual_seed((self._seed << 20) + self._epoch)
        order: list[int] = torch.randperm(len(self._lengths), generator=random).tolist()
        return iter(self._grouped(order, random) if self._group and order else order)

    def _grouped(self, order: list[int], random: torch.Generator) -> list[int]:
        # The longest record comes first: if memory runs out, it does so in the first step.
        longest = max(order, key=self._length_of)
        order.remove(longest)
        order.insert(0, longest)
        whole, size = len(order) // self._step * self._step, WINDOW * self._step
        steps: list[list[int]] = []
        for start in range(0, whole, size):
            window = self._falling(order[start : min(start + size, whole)])
            steps += [window[at : at + self._step] for at in range(0, len(window), self._step)]
        mixed = [steps[place] for place in torch.randperm(len(steps), generator=random).tolist()]
        mixed.sort(key=lambda step: longest not in step)
        return [index for step in mixed for index in step] + self._falling(order[whole:])

    def _falling(self, indices: list[int]) -> list[int]:
        return sorted(indices, key=self._length_of, reverse=True)

    def _length_of(self, index: int) -> int:
        return self._lengths[index]


#: PR_SET_PDEATHSIG of prctl(2).
_SIGNAL_AT_PARENTS_DEATH = 1
#: Turns features into the model's inputs: tensors by argument name, `labels` [B, T] among them, not shifted,
#: `NO_LABEL` where there is none. The rows may be in another order than the features.
Collator = Callable[[Sequence[Feature]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class BatchSampler:
    """Which examples each micro-batch of each process holds. `batch_size` is the total over all processes.

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
        """How many micro-batches each process accumulates in one step."""
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
        order = LengthSampler(self.lengths, self.batch_size, self.seed, group=self.grouped)
        order.set_epoch(number)
        indices, size = list(order), self.batch_size
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def of_process(self, number: int, process: int) -> Iterator[list[int]]:
        """Yield one process's micro-batches of an epoch: the same number for all, some empty at the end."""
        micro, at_once = self.micro_batch_size, self.micro_batch_size * self.processes
        for step in self.epoch(number):
            for start in range(0, len(step), at_once):
                at = start + process * micro
                yield step[at : at + micro]


class EpochBatches(Sampler[list[int]]):
    """One process's micro-batches of the current epoch."""

    def __init__(self, order: BatchSampler, process: int) -> None:
        self._order = order
        self._process = process
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0."""
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
        collate: LabelCollator,
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
            # A generator of its own: drawing the workers' seeds from the global one would change dropout.
            generator=torch.Generator().manual_seed(0),
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0."""
        assert isinstance(self.batch_sampler, EpochBatches)
        self.batch_sampler.set_epoch(epoch)


class LabelCollator:
    """A family's collator, which adds what training needs to know of the batch."""

    def __init__(self, collate: Collator, features: Sequence[Feature]) -> None:
        self._collate = collate
        self._features = features

    def __call__(self, rows: Sequence[tuple[int, Feature]]) -> dict[str, Tensor]:
        """Return the collator's tensors with `shift_labels` [B, T], `rows` (indices) and `tokens` (a count)."""
        batch = dict(self._collate([feature for _, feature in rows] or self._features[:1]))
        if not rows:
            # This process has no examples left in this step; it still takes part in the collective
            # operations.
            batch["labels"] = torch.full_like(batch["labels"], NO_LABEL)
        # The Trainer counts the label tokens of an accumulated batch from these.
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
    """Return labels [B, T] shifted one to the left: each position has its next token."""
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=NO_LABEL)


def _begin_worker(run: int, worker: int) -> None:
    """Ignore signals, which the run (process `run`) handles for its workers, and end when it ends.

    Ctrl-C and a closing terminal signal every process. torch watches its parent only later: a worker whose
    parent was killed right after the start would wait for ever.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if os.getppid() != run:
        os._exit(1)


# Training batches of causal language models: one row an example, padded on the right.


@dataclass(frozen=True, slots=True)
class CausalCollator:
    """Only the answer and its end token are labelled. Padding is neither attended to nor learned."""

    pad_id: int

    def __call__(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `labels`, all [B, T], in the order of the features."""
        longest = max(feature.length for feature in features)
        shape = (len(features), longest)
        ids = torch.full(shape, self.pad_id)
        mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, NO_LABEL)
        for row, feature in enumerate(features):
            begin, end = len(feature.prompt_ids), feature.length
            ids[row, :end] = torch.tensor((*feature.prompt_ids, *feature.answer_ids))
            mask[row, :end] = 1
            labels[row, begin:end] = ids[row, begin:end]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
