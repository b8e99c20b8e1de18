"""Drawing a token from the scores of a whole vocabulary in the library. Imports no torch.

What is drawn, and when it is left undecided, is as in `medchat.inference.token_draw`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medchat.errors import MemoryShortageError
from medchat.inference.cpu_engine.library import INSTRUCTION_SETS, chosen_instructions, open_library
from medchat.language import say

#: The words of a Mersenne Twister.
STATE_WORDS = 624


@dataclass(frozen=True, slots=True, eq=False)
class TwisterState:
    """Where a Mersenne Twister (MT19937) stands: its words [624], and how many of them were used.

    Raises ValueError for anything else.
    """

    words: NDArray[np.uint32]
    used: int

    def __post_init__(self) -> None:
        if self.words.shape != (STATE_WORDS,) or self.words.dtype != np.uint32:
            raise ValueError(f"words of {self.words.dtype} {self.words.shape}")
        if not 0 <= self.used <= STATE_WORDS:
            raise ValueError(f"{self.used} words used")


def draw_token(
    scores: NDArray[np.float32],
    temperature: float,
    left_out: float | None,
    state: TwisterState,
    *,
    top_k: int = 0,
) -> tuple[int | None, TwisterState]:
    """Return the token that is drawn from `scores` [V], all finite, and the state after a uniform number for each.

    Of the `top_k` likeliest tokens (0: of all) the unlikeliest, that have at most `left_out` together, are not drawn.
    None for the token where rounding decides. Raises ValueError for other types and ranges, MemoryShortageError,
    EngineUnavailableError.
    """
    if scores.ndim != 1 or len(scores) == 0 or scores.dtype != np.float32:
        raise ValueError(f"scores of {scores.dtype} {scores.shape}")
    if not temperature > 0 or not (left_out is None or 0 <= left_out <= 1):
        raise ValueError(f"temperature {temperature}, {left_out} left out")
    if top_k < 0:
        raise ValueError(f"top_k {top_k}")
    library, scores, words = open_library(), np.ascontiguousarray(scores), state.words.copy()
    used, token = ctypes.c_size_t(state.used), ctypes.c_int64()
    failed = library.functions.medchat_draw(
        INSTRUCTION_SETS.index(chosen_instructions(library)),
        *(scores.ctypes.data, len(scores), temperature, -1.0 if left_out is None else left_out),
        min(top_k, len(scores)) or len(scores),
        *(words.ctypes.data, ctypes.addressof(used), ctypes.addressof(token)),
    )
    if failed:
        raise MemoryShortageError(say("运行中内存不足", "memory ran out while running"))
    return None if token.value < 0 else token.value, TwisterState(words, used.value)
