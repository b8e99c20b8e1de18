"""In which order a run sees its records: optimizer steps of like lengths, themselves in random order.

Padding is then nearly gone (specs/sft.md: 0.70 to 0.95 of the tokens real at batch 8). Which records make up
a step depends on the seed, the epoch and the effective batch alone: not on micro batches, nor on the number
of processes, nor on any generator's state. So a run may go on with other ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

#: Records are sorted within windows of so many steps: enough to be like one another, few enough that every
#: epoch puts others together.
WINDOW = 50


class LengthOrder(Sampler[int]):
    """Indices of records, epoch by epoch; consecutive `step` of them are one optimizer step's.

    Within a step the longest come first: whoever cuts it into micro batches, on one process or side by side
    on several, gets batches of like lengths. Without `group` the order is random.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int, *, group: bool = True) -> None:
        self._lengths, self._step, self._seed, self._group = list(lengths), step, seed, group
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is of, from 0."""
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
        # Memory is to run out in the first step or never: the longest record is not left to the last.
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
