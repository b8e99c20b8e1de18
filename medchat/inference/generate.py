"""Several prompts at once, and beam search, through transformers' `generate`.

Padding is on the left. Sampling is ours even here: each row has its own chooser with its own generator, so a
row's answer does not depend on its neighbours. Knows no text.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig as GenerateSettings
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from medchat.api import Finish, GenerationConfig
from medchat.inference.answer_deltas import answer_room
from medchat.inference.decode import GenerationLimits
from medchat.inference.memory_shortage import raise_on_oom
from medchat.inference.sampling import TokenChooser, refuse_non_finite


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The tokens of one answer, end token left out, and why it ended."""

    tokens: tuple[int, ...]
    finish: Finish


def generate_rows(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    config: GenerationConfig,
    limits: GenerationLimits,
    cancel: threading.Event | None = None,
) -> list[BatchAnswer]:
    """Answer the prompts `rows` (token ids), in their order.

    In float32 each answer is what it would be alone; in half precision, but for how its logits are rounded.
    Beam search takes one prompt after the other. Raises UsageError for a prompt that fills the
    context, MedchatError on non-finite logits, MemoryShortageError.
    """
    cancel = cancel or threading.Event()
    rooms = [answer_room(len(row), config, limits.context_length) for row in rows]
    groups = [[index] for index in range(len(rows))] if config.num_beams > 1 else [list(range(len(rows)))]
    answers: list[BatchAnswer] = []
    for group in groups:
        if group:
            chosen = [rows[index] for index in group]
            room = [rooms[index] for index in group]
            answers += _generate_group(model, chosen, room, config, limits, cancel)
    return answers


def _generate_group(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    rooms: Sequence[int],
    config: GenerationConfig,
    limits: GenerationLimits,
    cancel: threading.Event,
) -> list[BatchAnswer]:
    if cancel.is_set():
        return [BatchAnswer((), Finish.CANCELLED)] * len(rows)
    ids, mask = pad_left(rows, limits.pad_id, model.device)
    processors: list[LogitsProcessor] = [_OnlyFinite()]
    if config.num_beams == 1:
        processors.append(_OneChoiceARow(rows, config, limits))
    elif limits.token_count is not None:
        processors.append(_OnlyTokens(limits.token_count))
    with torch.inference_mode(), raise_on_oom():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=_settings(config, max(rooms), limits),
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([_WhenSet(cancel)]),
        )
    written = output[:, ids.shape[1] :].tolist()
    return [
        _answer(tokens, room, limits.stop_ids, cancel) for tokens, room in zip(written, rooms, strict=True)
    ]


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, longest - len(row) :] = torch.tensor(list(row))
        mask[index, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _settings(config: GenerationConfig, room: int, limits: GenerationLimits) -> GenerateSettings:
    beams = config.num_beams
    return GenerateSettings(
        max_new_tokens=room,
        # Rows are sampled by their choosers; what `generate` sees is always one certain token.
        do_sample=False,
        num_beams=beams,
        length_penalty=1.0,
        early_stopping=False,
        repetition_penalty=config.repetition_penalty if beams > 1 else 1.0,
        eos_token_id=sorted(limits.stop_ids),
        pad_token_id=limits.pad_id,
        use_cache=True,
    )


def _answer(
    tokens: Sequence[int], room: int, stop_ids: Collection[int], cancel: threading.Event
) -> BatchAnswer:
    for position, token in enumerate(tokens[:room]):
        if token in stop_ids:
            return BatchAnswer(tuple(tokens[:position]), Finish.STOP)
    cut = cancel.is_set() and len(tokens) < room
    return BatchAnswer(tuple(tokens[:room]), Finish.CANCELLED if cut else Finish.LENGTH)


class _OnlyFinite(LogitsProcessor):  # type: ignore[misc]
    """Stops at the first non-finite score instead of carrying on with nonsense."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores as they are."""
        refuse_non_finite(scores)
        return scores


class _OnlyTokens(LogitsProcessor):  # type: ignore[misc]
    """Takes rows that are no tokens out of the choice, leaving every token its probability."""

    def __init__(self, token_count: int) -> None:
        self._token_count = token_count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores [B, V] with -inf for ids from the count on."""
        scores = scores.clone()
        scores[:, self._token_count :] = float("-inf")
        return scores


class _OneChoiceARow(LogitsProcessor):  # type: ignore[misc]
    """Chooses each row's next token and leaves `generate` no other."""

    def __init__(
        self, rows: Sequence[Sequence[int]], config: GenerationConfig, limits: GenerationLimits
    ) -> None:
        self._choosers: list[TokenChooser | None] = [
            TokenChooser(config, row, limits.token_count) for row in rows
        ]
        self._stop_ids = limits.stop_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores that are -inf but for the chosen token of each row [B, V]."""
        certain = torch.full_like(scores, float("-inf"))
        for index, chooser in enumerate(self._choosers):
            token = chooser.choose(scores[index]) if chooser else 0
            certain[index, token] = 0.0
            if token in self._stop_ids:
                self._choosers[index] = None
        return certain


class _WhenSet(StoppingCriteria):  # type: ignore[misc]
    """Stops every row once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return bool [B]."""
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device)
