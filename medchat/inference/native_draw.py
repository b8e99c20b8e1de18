"""Drawing a token in the native library from the state of one of torch's generators, if it is known how that lies."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from medchat.inference.cpu_engine.draw import STATE_WORDS, TwisterState, draw_token
from medchat.inference.cpu_engine.library import EngineUnavailableError, open_library

#: Where the bytes of a state of torch's say how many words are left, the number of the next one, and the words, 64 bits
#: each. At first one word is left, as once the last one was used.
_LEFT, _NEXT, _WORDS = slice(8, 12), slice(16, 24), slice(24, 24 + 8 * STATE_WORDS)


def draw_natively(
    scores: Tensor, temperature: float, left_out: float | None, generator: torch.Generator
) -> int | None:
    """Return the id that is drawn from float32 `scores` [V] on the CPU (`draw_token`), None if rounding decides.

    `generator` is then where torch would leave it after a uniform number in float64 for each of them.
    """
    state = generator.get_state()
    raw = state.numpy()
    words, left, following = (
        raw[_WORDS].view(np.uint64),
        raw[_LEFT].view(np.int32),
        raw[_NEXT].view(np.uint64),
    )
    before = TwisterState(words.astype(np.uint32), STATE_WORDS + 1 - int(left[0]))
    token, after = draw_token(scores.numpy(), temperature, left_out, before)
    words[:], left[0], following[0] = after.words, STATE_WORDS + 1 - after.used, after.used
    generator.set_state(state)
    return token


@cache
def can_draw_natively() -> bool:
    """Say whether the library is there and moves a generator as this torch does."""
    try:
        open_library()
    except EngineUnavailableError:
        return False
    ours, torchs = (torch.Generator().manual_seed(1) for _ in range(2))
    if len(ours.get_state()) < _WORDS.stop:
        return False
    # More than one round of words, and then a part of one.
    for count in (STATE_WORDS, 100):
        uniform = torch.empty(count, dtype=torch.float64).uniform_(generator=torchs)
        quotients = 1 / -torch.log1p(-uniform)
        if draw_natively(torch.zeros(count), 1.0, None, ours) not in (None, int(quotients.argmax())):
            return False
    return torch.equal(ours.get_state(), torchs.get_state())
