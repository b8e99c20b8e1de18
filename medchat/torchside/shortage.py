"""Saying that memory ran out while running, as the one error family does. Knows no models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medchat.errors import MemoryShortageError
from medchat.language import say

#: What torch's CPU allocator says in a plain RuntimeError.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def memory_shortage_told(remedy: str = "") -> Iterator[None]:
    """Within this block a failed allocation raises MemoryShortageError, with `remedy` or the usual one."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _told(remedy) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        raise _told(remedy) from error


def _told(remedy: str) -> MemoryShortageError:
    return MemoryShortageError(
        say("运行中内存不足", "memory ran out while running"),
        remedy
        or say(
            "请缩短输入、减小 --max-new-tokens，或加上 --quantize int8 再试",
            "shorten the input, lower --max-new-tokens, or try --quantize int8",
        ),
    )
