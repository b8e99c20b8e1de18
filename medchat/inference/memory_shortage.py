"""Saying that memory ran out while running, as the one error family does. Knows no models, and imports no torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from medchat.errors import MemoryShortageError
from medchat.language import say

#: torch's error of a graphics card, a RuntimeError, and what its CPU allocator says in a plain one.
_TORCHS_ERROR = "OutOfMemoryError"
_CPU_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def raise_on_oom(remedy: str = "", *, what: str = "") -> Iterator[None]:
    """Within this block a failed allocation raises MemoryShortageError, with `what` and `remedy` or the usual ones."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, MemoryError) or type(error).__name__ == _TORCHS_ERROR
        if not known and _CPU_ALLOCATOR not in str(error):
            raise
        raise _shortage(what, remedy) from error


def give_back_memory() -> None:
    """Let go of what nobody holds any more, on the graphics card too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _shortage(what: str, remedy: str) -> MemoryShortageError:
    return MemoryShortageError(
        what or say("运行中内存不足", "memory ran out while running"),
        remedy
        or say(
            "请缩短输入、调低 --max-new-tokens，或加上 --quantize int8 再试",
            "shorten the input, lower --max-new-tokens, or try --quantize int8",
        ),
    )
