"""Limits the memory of a process that trains on the CPU: malloc's thresholds and oneDNN's kernel cache.

oneDNN, which computes bfloat16, compiles a kernel for every shape and caches 1024 of them, and so does the
layer between it and torch. Batches of varying lengths have many shapes: the process of a 1 MB model grew by
1.1 GB in a hundred steps. With a cache of 64 it did not, and was no slower (docs/measurements.md).

glibc's malloc allocates large blocks with mmap, but each one that is freed raises the mmap threshold, up to
32 MiB. Tensors of a training run then share one heap whose freed memory cannot be returned while anything
small is allocated above it: a run with 2.0 GB of tensors took 3.3 GB (docs/measurements.md). A fixed
threshold costs page faults: between nothing and a quarter of the time.
"""

from __future__ import annotations

import ctypes
import os
import platform

#: Of malloc.h, mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
#: Blocks of at least this size are mapped. Smaller tensors, those of a small model, stay fast.
OWN_BLOCK = 2**20
#: Enough for the shapes of a few steps.
KERNELS_KEPT = 64
#: Free bytes that may stay at the top of the heap: fixing one threshold leaves the others at 128 kB.
_KEPT = 2**26


def trim_malloc() -> bool:
    """Fix glibc's thresholds for the rest of this process; False if there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(
        mallopt(parameter, value) == 1
        for parameter, value in (
            (_MMAP_THRESHOLD, OWN_BLOCK),
            (_TRIM_THRESHOLD, _KEPT),
            (_TOP_PAD, _KEPT // 4),
        )
    )


def limit_onednn_cache() -> None:
    """Limit oneDNN's kernel cache for the rest of this process. Call it before the first computation."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS_KEPT))
