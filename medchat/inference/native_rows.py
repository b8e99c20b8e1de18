"""Several sequences in the native engine that take their tokens together.

No result depends on its neighbours, so every answer is, bit by bit, what it would be alone. Knows no text.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from medchat.api import Finish, GenerationConfig
from medchat.inference.answer_deltas import answer_room
from medchat.inference.cpu_engine.decoder_weights import Floats
from medchat.inference.decode import GenerationLimits
from medchat.inference.fused_decoder import FusedDecoder
from medchat.inference.generate import BatchAnswer
from medchat.inference.joint_answers import JointAnswers
from medchat.inference.memory_shortage import raise_on_oom
from medchat.inference.native_model import NativeModel
from medchat.inference.native_sequence import NativeSequence


class NativeRows:
    """The sequences of one decoder. The last that ended is kept: a prompt that begins alike is read from there."""

    def __init__(self, model: NativeModel, decoder: FusedDecoder) -> None:
        self._model, self._decoder = model, decoder
        self._kept: NativeSequence | None = None

    def begin(self, ids: Sequence[int], cancel: threading.Event) -> tuple[NativeSequence, Floats, int]:
        """Read a prompt alone: see `Rows`, as all that follows."""
        sequence, self._kept = self._kept or self._model.begin(self._decoder), None
        logits = self._decoder.read([sequence.prompt(ids)], cancel.is_set)[0]
        return sequence, logits, sequence.reused

    def advance(self, rows: Sequence[NativeSequence], tokens: Sequence[int]) -> Floats:
        """Append one token to each. Returns logits [B, V]."""
        return self._decoder.read([row.append(token) for row, token in zip(rows, tokens, strict=True)])

    def end(self, row: NativeSequence) -> None:
        """Keep `row` for the next prompt."""
        self._kept = row

    def forget(self) -> None:
        """Drop what is kept."""
        self._kept = None


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
    for row in rows:
        answer_room(len(row), config, limits.context_length)  # refused before any of them is read
    joint = JointAnswers(NativeRows(model, decoder), limits)
    with raise_on_oom():
        answers = [joint.begin(row, config, cancel) for row in rows]
        while joint.advance():
            pass
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    return [BatchAnswer(tuple(answer.tokens), answer.finish or Finish.ERROR) for answer in answers]
