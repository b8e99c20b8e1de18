"""A model in the native engine where that can compute all of it, and through torch, layer by layer, where it cannot.

Which of the two is looked at whenever a prompt is read: adapters may have been attached or exchanged since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medchat.inference.decode import DraftVerifier, ForgettingStepper, verifier_of
from medchat.inference.fused_decoder import DecoderParts, FusedDecoder
from medchat.inference.native_sequence import NativeSequence, SequenceDecoder, SequenceStepper
from medchat.inference.sampling import Logits


class NativeModel:
    """What the engine has of a model."""

    def __init__(
        self,
        find_parts: Callable[[], DecoderParts | None],
        begin: Callable[[SequenceDecoder], NativeSequence],
    ) -> None:
        """`find_parts` says what the model consists of now, None if torch is to run it; `begin` a sequence."""
        self._find_parts = find_parts
        self._begin = begin
        self._decoder: FusedDecoder | None = None

    def decoder(self) -> FusedDecoder | None:
        """Return the model as it is now, the same object as long as it is the same; None if torch is to run it."""
        parts = self._find_parts()
        if parts is None:
            self._decoder = None
        elif self._decoder is None or not self._decoder.consists_of(parts):
            self._decoder = FusedDecoder(parts)
        return self._decoder

    def begin(self, decoder: SequenceDecoder) -> NativeSequence:
        """Return an empty sequence."""
        return self._begin(decoder)

    def logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor | None:
        """Return the logits [T, V] that predict each of the T ids behind `prompt`; None if torch is to run it."""
        decoder = self.decoder()
        if decoder is None:
            return None
        ids = [*prompt, *target[:-1]]
        sequence = self.begin(decoder)
        tokens = sequence.prompt(ids, prompt_tokens=len(prompt), wanted=len(target))
        return torch.from_numpy(decoder.read([tokens]))


class NativeStepper:
    """Reads prompts and steps through answers, one sequence at a time: natively, or with the stepper for torch."""

    def __init__(self, model: NativeModel, layered: ForgettingStepper) -> None:
        self._model = model
        self._layered = layered
        self._decoder: FusedDecoder | None = None
        self._stepper: ForgettingStepper = layered

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were still in the cache."""
        return self._stepper.reused_tokens

    @property
    def verifier(self) -> DraftVerifier | None:
        """What verifies drafts behind the last prompt: nothing where torch computes."""
        return verifier_of(self._stepper)

    def forget(self) -> None:
        """Drop the cache, and with it its memory."""
        self._stepper.forget()
        self._layered.forget()

    def prefill(
        self,
        ids: Sequence[int],
        cancel: threading.Event | None = None,
        *,
        prompt_tokens: int | None = None,
    ) -> Logits:
        """Read the prompt from where it departs from the cache. Returns logits [V]; raises GenerationCancelled.

        Ids behind the first `prompt_tokens` begin the answer.
        """
        before, self._decoder = self._decoder, self._model.decoder()
        if self._decoder is not before:
            self.forget()
            self._stepper = (
                SequenceStepper(self._decoder, self._model.begin) if self._decoder else self._layered
            )
        return self._stepper.prefill(ids, cancel or threading.Event(), prompt_tokens=prompt_tokens)

    def advance(self, token: int) -> Logits:
        """Append one token. Returns logits [V]."""
        return self._stepper.advance(token)
