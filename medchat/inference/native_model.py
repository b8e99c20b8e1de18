"""A model in the native engine where that can compute all of it, and through torch, layer by layer, where it cannot.

Which of the two is looked at whenever a prompt is read: adapters may have been attached or exchanged since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from torch import Tensor

from medchat.inference.cpu_engine.decoder import Tokens
from medchat.inference.decode import ForgettingStepper
from medchat.inference.fused_decoder import DecoderParts, FusedDecoder
from medchat.inference.native_sequence import NativeSequence


class NativeModel:
    """What the engine has of a model."""

    def __init__(
        self,
        find_parts: Callable[[], DecoderParts | None],
        begin: Callable[[FusedDecoder], NativeSequence],
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

    def begin(self, decoder: FusedDecoder) -> NativeSequence:
        """Return an empty sequence."""
        return self._begin(decoder)

    def logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor | None:
        """Return the logits [T, V] that predict each of the T ids behind `prompt`; None if torch is to run it."""
        decoder = self.decoder()
        if decoder is None:
            return None
        ids = [*prompt, *target[:-1]]
        sequence = self.begin(decoder)
        return decoder.read([sequence.prompt(ids, prompt_tokens=len(prompt), wanted=len(target))])


class NativeStepper:
    """Reads prompts and steps through answers, one sequence at a time: natively, or with the stepper for torch."""

    def __init__(self, model: NativeModel, layered: ForgettingStepper) -> None:
        self._model = model
        self._layered = layered
        self._decoder: FusedDecoder | None = None
        self._sequence: NativeSequence | None = None

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were still in the cache."""
        if self._decoder is None:
            return self._layered.reused_tokens
        return self._sequence.reused if self._sequence else 0

    def forget(self) -> None:
        """Drop the cache, and with it its memory."""
        self._sequence = None
        self._layered.forget()

    def prefill(
        self,
        ids: Sequence[int],
        cancel: threading.Event | None = None,
        *,
        prompt_tokens: int | None = None,
    ) -> Tensor:
        """Read the prompt from where it departs from the cache. Returns logits [V]; raises GenerationCancelled.

        Ids behind the first `prompt_tokens` begin the answer.
        """
        cancel = cancel or threading.Event()
        before, self._decoder = self._decoder, self._model.decoder()
        if self._decoder is not before:
            self.forget()
        if self._decoder is None:
            return self._layered.prefill(ids, cancel, prompt_tokens=prompt_tokens)
        if self._sequence is None:
            self._sequence = self._model.begin(self._decoder)
        tokens = self._sequence.prompt(ids, prompt_tokens=prompt_tokens)
        return self._read(self._decoder, tokens, cancel)

    def advance(self, token: int) -> Tensor:
        """Append one token. Returns logits [V]."""
        if self._decoder is None or self._sequence is None:
            return self._layered.advance(token)
        return self._read(self._decoder, self._sequence.append(token), None)

    def _read(self, decoder: FusedDecoder, tokens: Tokens, cancel: threading.Event | None) -> Tensor:
        try:
            return decoder.read([tokens], cancel.is_set if cancel else None)[0]
        except BaseException:
            # Some layers may hold the new tokens and some not.
            self.forget()
            raise
