"""Torch's random generator on a CPU, in numpy: the same numbers for the same seed. Imports no torch."""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.draw import STATE_WORDS, TwisterState

#: torch makes a double of the lowest bits of two words.
_DOUBLE_BITS = 53
_WORD_BITS = 32


class Twister:
    """A Mersenne Twister (MT19937) that starts where `torch.Generator().manual_seed(seed)` does."""

    def __init__(self, seed: int | None) -> None:
        """Any integer, of which torch takes the lowest 32 bits; None starts somewhere that nobody can foretell."""
        seed = secrets.randbits(_WORD_BITS) if seed is None else seed % 2**_WORD_BITS
        #: Where it stands; may be exchanged.
        self.state = TwisterState(
            np.random.RandomState(seed).get_state(legacy=False)["state"]["key"], STATE_WORDS
        )

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return the `count` numbers from [0, 1) that torch's `uniform_` would put into doubles."""
        source = np.random.MT19937()
        source.state = {
            "bit_generator": "MT19937",
            "state": {"key": self.state.words, "pos": self.state.used},
        }
        words = source.random_raw(2 * count)
        after = source.state["state"]
        self.state = TwisterState(after["key"], after["pos"])
        mantissas = (words[::2] << np.uint64(_WORD_BITS) | words[1::2]) & np.uint64(2**_DOUBLE_BITS - 1)
        doubles: NDArray[np.float64] = mantissas.astype(np.float64) * 2.0**-_DOUBLE_BITS
        return doubles
