"""The log-probabilities of several answers to each of several prompts, every prompt read once.

The keys and values of a prompt are copied for each of its answers, whose own tokens alone are computed then. What
all prompts of a group begin with (the template, worked examples) is read once for the group. Groups are bounded, so
memory does not grow with the number of prompts. Knows no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from medchat.inference.generate import pad_left
from medchat.inference.kv_cache import PaddedReader
from medchat.inference.prompt_ids import common_prefix

#: A group has at most so many prompts, and so many tokens of them with their padding.
_GROUP_PROMPTS, _GROUP_TOKENS = 16, 8192
#: Logits that are held at once, in numbers: a quarter of a gigabyte in float32.
MOST_LOGITS = 1 << 26
#: A common beginning of fewer tokens is not worth a pass of its own.
_WORTH_SHARING = 16


@dataclass(frozen=True, slots=True)
class PromptToScore:
    """Token ids of a prompt, and of each answer to it with its end token."""

    prompt: Sequence[int]
    targets: Sequence[Sequence[int]]


#: Reads the answers [N, L], padded on the right, behind the prompts of those numbers [N]; returns logits [N, L, V].
ReadAnswers = Callable[[Tensor, Tensor], Tensor]


def chosen_scores(logits: Tensor, targets: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    """Return the natural log-probability of each id of each target; `logits` [N, T, V] predict them."""
    wanted = _pad_right(targets, logits.device)
    found = logits.float().log_softmax(-1).gather(-1, wanted[..., None])[..., 0].tolist()
    return [tuple(row[: len(target)]) for row, target in zip(found, targets, strict=True)]


def score_behind(
    first: Tensor, targets: Sequence[Sequence[Sequence[int]]], read: ReadAnswers
) -> list[list[tuple[float, ...]]]:
    """Return the scores of the `targets` of each prompt; `first` [P, V] predicts the first id behind each prompt."""
    flat = [target for options in targets for target in options]
    if not flat:
        return [[] for _ in targets]
    numbers = [number for number, options in enumerate(targets) for _ in options]
    owners = torch.tensor(numbers, device=first.device)
    logits = first[owners][:, None]
    begun = [target[:-1] for target in flat]
    if any(begun):
        logits = torch.cat([logits, read(_pad_right(begun, first.device), owners)], dim=1)
    scores = iter(chosen_scores(logits, flat))
    return [[next(scores) for _ in options] for options in targets]


def score_causal(
    model: PreTrainedModel, rows: Sequence[PromptToScore], pad_id: int
) -> list[list[tuple[float, ...]]]:
    """Return the scores of the targets of each row, by a causal model of transformers; `pad_id` fills the left."""
    scores: dict[int, list[tuple[float, ...]]] = {}
    for numbers in _groups(rows, model.config.get_text_config().vocab_size):
        found = _score_group(model, [rows[number] for number in numbers], pad_id)
        scores.update(zip(numbers, found, strict=True))
    return [scores[number] for number in range(len(rows))]


def _groups(rows: Sequence[PromptToScore], vocabulary: int) -> Iterator[list[int]]:
    """Yield numbers of rows that are read together: of about one length, within the bounds above."""
    group: list[int] = []
    answers, longest = 0, 0
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number].prompt)):
        row = rows[number]
        ids = max(map(len, row.targets), default=0)
        tokens = len(rows[group[0]].prompt if group else row.prompt) * (len(group) + 1)
        logits = (answers + len(row.targets)) * max(longest, ids) * vocabulary
        if group and (len(group) == _GROUP_PROMPTS or tokens > _GROUP_TOKENS or logits > MOST_LOGITS):
            yield group
            group, answers, longest = [], 0, 0
        group.append(number)
        answers, longest = answers + len(row.targets), max(longest, ids)
    if group:
        yield group


def _score_group(
    model: PreTrainedModel, rows: Sequence[PromptToScore], pad_id: int
) -> list[list[tuple[float, ...]]]:
    prompts = _ReadPrompts(model, [row.prompt for row in rows], pad_id)
    return score_behind(prompts.first, [row.targets for row in rows], prompts.read_answers)


class _ReadPrompts:
    """Prompts that have been read together: `first` [P, V] are the logits of what follows each."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int) -> None:
        self._reader = PaddedReader(model)
        self._cache: Cache = DynamicCache(config=model.config)
        shared = min(min(common_prefix(rows[0], row), len(row) - 1) for row in rows)
        shared = shared if len(rows) > 1 and shared >= _WORTH_SHARING else 0
        self._mask = torch.ones((1, shared), dtype=torch.long, device=model.device)
        if shared:
            self._reader.read(
                torch.tensor([list(rows[0][:shared])], device=model.device), self._mask, self._cache, 1
            )
            self._copy(torch.zeros(len(rows), dtype=torch.long, device=model.device))
        ids, mask = pad_left([row[shared:] for row in rows], pad_id, model.device)
        self._mask = torch.cat([self._mask.expand(len(rows), -1), mask], dim=1)
        self.first: Tensor = self._reader.read(ids, self._mask, self._cache, 1)[:, -1]

    def read_answers(self, ids: Tensor, owners: Tensor) -> Tensor:
        """See `ReadAnswers`; to be called once."""
        self._copy(owners)
        # What fills the right follows all that is looked at.
        mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        return self._reader.read(ids, mask, self._cache, ids.shape[1])

    def _copy(self, owners: Tensor) -> None:
        self._cache.batch_select_indices(owners)
        self._mask = self._mask[owners]


def _pad_right(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
