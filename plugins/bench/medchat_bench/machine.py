"""What this machine gives while a model is measured: cores, processor, memory bandwidth, memory taken."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medchat.plugin_kit import read_regular, sanitize_line

#: Bytes that one measurement copies in all: many times what a processor's caches hold.
_COPIED = 1 << 28
#: Copies of one measurement, of which the fastest counts: others disturb it, and nothing makes it faster.
_COPIES = 3
#: Where Linux names its processors, the bytes that are read of it at the most, and the longest name that is shown.
_PROCESSORS, _LONGEST, _NAME = Path("/proc/cpuinfo"), 1 << 20, 80

Block = npt.NDArray[np.uint8]


def copy_bandwidth(threads: int) -> float:
    """Return the bytes a second that `threads` threads read and write together while they copy memory."""
    size = _COPIED // threads
    pairs = [(np.ones(size, np.uint8), np.zeros(size, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return max(_copied_a_second(pool, pairs) for _ in range(_COPIES))


def _copied_a_second(pool: ThreadPoolExecutor, pairs: list[tuple[Block, Block]]) -> float:
    begun = time.perf_counter()
    for done in [pool.submit(np.copyto, target, source) for source, target in pairs]:
        done.result()
    return 2 * sum(source.nbytes for source, _ in pairs) / (time.perf_counter() - begun)


def peak_memory() -> int:
    """Return the most bytes of memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_facts() -> dict[str, Any]:
    """Return the processor, the cores that this process may use and the system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = read_regular(_PROCESSORS, _LONGEST).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        lines = []
    named = next((line for line in lines if line.startswith("model name")), "")
    return sanitize_line(named.partition(":")[2].strip() or platform.processor() or platform.machine(), _NAME)
