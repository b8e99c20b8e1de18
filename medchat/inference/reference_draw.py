"""What a draw is held against: transformers' own filters, then torch's `multinomial`.

`medchat.inference.token_draw` draws the same tokens sooner, and asks here where rounding could decide.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from medchat.inference.cpu_engine.draw import STATE_WORDS, TwisterState
from medchat.inference.twister import Twister

#: Where the bytes of a state of torch's say how many words are left, the number of the next one, and the words, 64 bits
#: each. At first one word is left, as once the last one was used.
_LEFT, _NEXT, _WORDS = slice(8, 12), slice(16, 24), slice(24, 24 + 8 * STATE_WORDS)


def reference_draw(
    scores: NDArray[np.float32], temperature: float, top_k: int, top_p: float, generator: Twister
) -> int:
    """Return an id drawn from `scores` [V], filtered by transformers and drawn by torch; `generator` moves on.

    0 and 1 are a `top_k` and a `top_p` that leave out nothing.
    """
    filters = LogitsProcessorList()
    if temperature != 1.0:
        filters.append(TemperatureLogitsWarper(temperature))
    if top_k:
        filters.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        filters.append(TopPLogitsWarper(top_p))
    # Softmax does not mind the shift, and a temperature near zero then cannot overflow.
    shifted = torch.from_numpy(scores - scores.max()).unsqueeze(0)
    filtered = filters(torch.empty(1, 0, dtype=torch.long), shifted)
    source = generator_at(generator.state)
    token = int(torch.multinomial(filtered.softmax(dim=-1)[0], 1, generator=source))
    generator.state = twister_state(source)
    return token


def generator_at(state: TwisterState) -> torch.Generator:
    """Return a generator of torch's that stands at `state`."""
    generator = torch.Generator()
    raw = generator.get_state()
    words, left, following = _fields(raw)
    words[:], left[0], following[0] = state.words, STATE_WORDS + 1 - state.used, state.used
    generator.set_state(raw)
    return generator


def twister_state(generator: torch.Generator) -> TwisterState:
    """Return where `generator`, one of torch's on a CPU, stands."""
    words, left, _ = _fields(generator.get_state())
    return TwisterState(words.astype(np.uint32), STATE_WORDS + 1 - int(left[0]))


def _fields(
    state: torch.Tensor,
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint64]]:
    """Return the words, how many are left and the number of the next one, where they lie in `state`."""
    raw = state.numpy()
    return raw[_WORDS].view(np.uint64), raw[_LEFT].view(np.int32), raw[_NEXT].view(np.uint64)
