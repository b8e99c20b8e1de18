"""Sequences in the native engine and a stepper through one: what its cache holds, what is read next. No torch here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import copy
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.decoder import NativeDecoder, Tokens
from medchat.inference.cpu_engine.decoder_weights import Floats
from medchat.inference.interrupt import GenerationCancelled
from medchat.inference.prompt_ids import common_prefix

#: Places of tokens.
Places = NDArray[np.int64]


class SequenceDecoder(Protocol):
    """A decoder of the engine with what goes around it, whoever computes that."""

    @property
    def native(self) -> NativeDecoder:
        """The decoder itself."""
        ...

    def embed(self, ids: Sequence[int]) -> Floats:
        """Return the states [T, width] that the first layer reads."""
        ...

    def turns(self, positions: Places) -> tuple[Floats | None, Floats | None]:
        """Return cosines and sines [T, head_width / 2] of `positions`, [T] or [n, T]; None if nothing turns."""
        ...

    def read(self, tokens: Sequence[Tokens], cancelled: Callable[[], bool] | None = None) -> Floats:
        """Read `tokens`, each of another sequence; return the logits [W, V] of those wanted.

        Raises as `NativeDecoder.read`.
        """
        ...


class NativeSequence(Protocol):
    """What a family's tokens see of each other, and how their positions are counted."""

    @property
    def reused(self) -> int:
        """How many tokens of the last prompt the cache held already."""
        ...

    def prompt(self, ids: Sequence[int], *, prompt_tokens: int | None = None, wanted: int = 1) -> Tokens:
        """Return what is to be read of a whole prompt, with the results of its last `wanted` tokens.

        Ids behind the first `prompt_tokens` begin the answer. They count as read: whoever does not read them drops
        the sequence.
        """
        ...

    def append(self, *tokens: int) -> Tokens:
        """Return more tokens of the answer, with the results of all of them, likewise."""
        ...

    def crop(self, count: int) -> None:
        """Drop the last `count` tokens that were appended."""
        ...

    def copy(self) -> NativeSequence:
        """Return a sequence that holds the same and goes on by itself. Raises MemoryShortageError."""
        ...


class CausalSequence:
    """A sequence whose tokens see all before them: what two prompts share at their beginning is read once."""

    def __init__(self, decoder: SequenceDecoder) -> None:
        self._decoder = decoder
        self._cache = decoder.native.new_cache()
        #: The ids whose keys and values the cache holds, in order.
        self._ids: list[int] = []
        self._reused = 0

    @property
    def reused(self) -> int:
        """How many tokens of the last prompt the cache held already."""
        return self._reused

    def prompt(self, ids: Sequence[int], *, prompt_tokens: int | None = None, wanted: int = 1) -> Tokens:
        """Return the tokens from where the prompt departs from what was read; the wanted ones are always read."""
        self._reused = min(common_prefix(self._ids, ids), len(ids) - wanted)
        del self._ids[self._reused :]
        return self._next(ids[self._reused :], wanted)

    def append(self, *tokens: int) -> Tokens:
        """Return more tokens, with the results of all of them."""
        return self._next(tokens, len(tokens))

    def crop(self, count: int) -> None:
        """Drop the last `count` tokens that were appended."""
        del self._ids[len(self._ids) - count :]

    def copy(self) -> CausalSequence:
        """Return a sequence that holds the same: see `NativeSequence`."""
        made = copy(self)
        made._cache, made._ids = self._cache.copy(), list(self._ids)
        return made

    def _next(self, ids: Sequence[int], wanted: int) -> Tokens:
        first = len(self._ids)
        self._ids.extend(ids)
        places = np.arange(first, len(self._ids))
        cosines, sines = self._decoder.turns(places)
        visible = (places + 1).astype(np.int32)
        return Tokens(self._cache, self._decoder.embed(ids), first, visible, cosines, sines, wanted)


class SequenceStepper:
    """Reads prompts and steps through answers in the native engine, one sequence at a time."""

    def __init__(self, decoder: SequenceDecoder, begin: Callable[[SequenceDecoder], NativeSequence]) -> None:
        """`begin` makes an empty sequence."""
        self._decoder, self._begin = decoder, begin
        self._sequence: NativeSequence | None = None

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were still in the cache."""
        return self._sequence.reused if self._sequence else 0

    def forget(self) -> None:
        """Drop the cache, and with it its memory."""
        self._sequence = None

    def prefill(
        self,
        ids: Sequence[int],
        cancel: threading.Event | None = None,
        *,
        prompt_tokens: int | None = None,
    ) -> Floats:
        """Read the prompt from where it departs from the cache. Returns logits [V]; raises GenerationCancelled.

        Ids behind the first `prompt_tokens` begin the answer.
        """
        if self._sequence is None:
            self._sequence = self._begin(self._decoder)
        logits: Floats = self._read(self._sequence.prompt(ids, prompt_tokens=prompt_tokens), cancel)[0]
        return logits

    def advance(self, token: int) -> Floats:
        """Append one token. Returns logits [V]. Raises ValueError before any prompt."""
        logits: Floats = self._read(self._begun().append(token), None)[0]
        return logits

    @property
    def verifier(self) -> SequenceStepper | None:
        """This, if tokens that are read together get the bits of each alone: not with a head that torch computes."""
        return self if self._decoder.native.weights.head is not None else None

    def advance_many(self, tokens: Sequence[int], cancel: threading.Event) -> Floats:
        """Append tokens. Returns logits [T, V]. Raises GenerationCancelled, and then none is appended."""
        sequence = self._begun()
        try:
            return self._decoder.read([sequence.append(*tokens)], cancel.is_set)
        except GenerationCancelled:
            sequence.crop(len(tokens))
            raise
        except BaseException:
            self.forget()
            raise

    def crop(self, count: int) -> None:
        """Drop the last `count` tokens that were appended."""
        self._begun().crop(count)

    def _begun(self) -> NativeSequence:
        if self._sequence is None:
            raise ValueError("no prompt was read")
        return self._sequence

    def _read(self, tokens: Tokens, cancel: threading.Event | None) -> Floats:
        try:
            return self._decoder.read([tokens], cancel.is_set if cancel else None)
        except BaseException:
            # Some layers may hold the new tokens and some not.
            self.forget()
            raise
