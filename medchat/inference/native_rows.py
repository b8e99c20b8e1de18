"""Several prompts at once in the native engine: each is read alone, then all take their tokens together.

A row that has ended leaves the others; each has its own chooser with its own generator, and no result depends on
its neighbours, so every answer is, bit by bit, what it would be alone. Knows no text.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from medchat.api import Finish, GenerationConfig
from medchat.inference.answer_deltas import answer_room
from medchat.inference.device import raise_on_oom
from medchat.inference.fused_decoder import FusedDecoder
from medchat.inference.generate import BatchAnswer, GenerationLimits
from medchat.inference.interrupt import GenerationCancelled
from medchat.inference.native_model import NativeModel
from medchat.inference.native_sequence import NativeSequence
from medchat.inference.sampling import TokenChooser


def native_rows(
    model: NativeModel,
    decoder: FusedDecoder,
    rows: Sequence[Sequence[int]],
    config: GenerationConfig,
    limits: GenerationLimits,
    cancel: threading.Event,
) -> list[BatchAnswer]:
    """Answer the prompts `rows` (token ids), in their order, without beams.

    All end soon after `cancel` is set. Raises UsageError for a prompt that fills the context, MedchatError on
    non-finite logits, MemoryShortageError.
    """
    rooms = [answer_room(len(row), config, limits.context_length) for row in rows]
    answers = [
        _Row(TokenChooser(config, row, limits.token_count), room)
        for row, room in zip(rows, rooms, strict=True)
    ]
    with raise_on_oom():
        try:
            for row, answer in zip(rows, answers, strict=True):
                answer.sequence = model.begin(decoder)
                prompt = answer.sequence.prompt(row)
                answer.take(decoder.read([prompt], cancel.is_set)[0], limits)
            _advance(decoder, answers, limits, cancel)
        except GenerationCancelled:
            pass
    return [BatchAnswer(tuple(answer.tokens), answer.finish) for answer in answers]


@dataclass(slots=True)
class _Row:
    """An answer in the making; it has no sequence before its prompt is read, and none once it has ended."""

    chooser: TokenChooser
    room: int
    sequence: NativeSequence | None = None
    tokens: list[int] = field(default_factory=list)
    finish: Finish = Finish.CANCELLED

    def take(self, logits: Tensor, limits: GenerationLimits) -> None:
        token = self.chooser.choose(logits)
        if token in limits.stop_ids:
            self.finish, self.sequence = Finish.STOP, None
            return
        self.tokens.append(token)
        if len(self.tokens) == self.room:
            self.finish, self.sequence = Finish.LENGTH, None


def _advance(
    decoder: FusedDecoder, answers: Sequence[_Row], limits: GenerationLimits, cancel: threading.Event
) -> None:
    while not cancel.is_set():
        going = [(answer, answer.sequence) for answer in answers if answer.sequence is not None]
        if not going:
            return
        logits = decoder.read([sequence.append(answer.tokens[-1]) for answer, sequence in going])
        for (answer, _), row in zip(going, logits, strict=True):
            answer.take(row, limits)
