"""The log-probabilities of several answers to each of several prompts in the native engine, every prompt read once.

Answers go on from copies of the prompt's sequence, some of them together; what a prompt begins with like the one before
is not read again where the family can keep it. No result depends on its neighbours: the values are, bit by bit, those
of each answer alone. Memory depends on the longest prompt, not on how many there are. Knows no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medchat.inference.native_sequence import NativeSequence, SequenceDecoder
from medchat.inference.scoring import MOST_LOGITS, PromptToScore, chosen_scores

#: So many answers are read together: each takes memory for the keys and values of up to 63 tokens more than its own.
_TOGETHER = 8


def score_native(
    sequence: NativeSequence, decoder: SequenceDecoder, rows: Sequence[PromptToScore]
) -> list[list[tuple[float, ...]]]:
    """Return the scores of the targets of each row; `sequence` is an empty one of `decoder`.

    Raises MemoryShortageError.
    """
    return [list(_scores_of(sequence, decoder, row)) if row.targets else [] for row in rows]


def _scores_of(
    sequence: NativeSequence, decoder: SequenceDecoder, row: PromptToScore
) -> Iterator[tuple[float, ...]]:
    prompt = sequence.prompt(row.prompt, prompt_tokens=len(row.prompt))
    first = torch.from_numpy(decoder.read([prompt]))
    for group in _groups(row.targets, first.shape[-1]):
        for target, behind in zip(group, _read_behind(sequence, decoder, group), strict=True):
            yield chosen_scores(torch.cat([first, *behind])[None], [target])[0]


def _read_behind(
    sequence: NativeSequence, decoder: SequenceDecoder, targets: Sequence[Sequence[int]]
) -> list[tuple[Tensor, ...]]:
    """Return for each target the logits [T - 1, V] that predict its ids from the second on; none if it has one."""
    parts = [sequence.copy().append(*target[:-1]) for target in targets if len(target) > 1]
    if not parts:
        return [()] * len(targets)
    read = iter(torch.split(torch.from_numpy(decoder.read(parts)), [part.wanted for part in parts]))
    return [(next(read),) if len(target) > 1 else () for target in targets]


def _groups(targets: Sequence[Sequence[int]], vocabulary: int) -> Iterator[list[Sequence[int]]]:
    """Yield the targets in their order, as many as are read together."""
    group: list[Sequence[int]] = []
    for target in targets:
        tokens = sum(map(len, group)) + len(target)
        if group and (len(group) == _TOGETHER or tokens * vocabulary > MOST_LOGITS):
            yield group
            group = []
        group.append(target)
    yield group
