"""One sequence in the native engine: which tokens its cache holds, and where the next ones go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from medchat.inference.cpu_engine.decoder import Tokens
from medchat.inference.fused_decoder import FusedDecoder
from medchat.inference.kv_cache import common_prefix


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

    def append(self, token: int) -> Tokens:
        """Return one more token, likewise."""
        ...


class CausalSequence:
    """A sequence whose tokens see all before them: what two prompts share at their beginning is read once."""

    def __init__(self, decoder: FusedDecoder) -> None:
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

    def append(self, token: int) -> Tokens:
        """Return one more token."""
        return self._next([token], 1)

    def _next(self, ids: Sequence[int], wanted: int) -> Tokens:
        first = len(self._ids)
        self._ids.extend(ids)
        places = torch.arange(first, len(self._ids))
        cosines, sines = self._decoder.turns(places)
        visible = (places + 1).numpy().astype(np.int32)
        return Tokens(self._cache, self._decoder.embed(ids), first, visible, cosines, sines, wanted)
