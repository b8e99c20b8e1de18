"""Keeping a process that trains on the CPU small: freed memory is returned to the system, compiled kernels are few.

oneDNN, which computes bfloat16, compiles a kernel for every shape and keeps 1024 of them, and so does the
layer between it and torch. Batches of all lengths have many shapes: a miniature of 1 MB grew by 1.1 GB in a
hundred steps. With 64 kept it did not, and was no slower (docs/measurements.md).

glibc's malloc takes large blocks from the system one by one, but every one that is freed raises the size from
which it does so, up to 32 MiB. Tensors of a training run then share one heap in which what is freed cannot be
given back as long as something small lies above it: a run that holds 2.0 GB stood at 3.3 GB
(docs/measurements.md). Fixing that size costs page faults: nothing to a quarter of the time.
"""

from __future__ import annotations

import ctypes
import os
import platform

#: Of malloc.h, mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
#: From this size on a block is the system's own. Smaller tensors, a small model's, stay quick.
OWN_BLOCK = 2**20
#: The shapes of a few steps.
KERNELS_KEPT = 64
#: How much the heap may keep at its top: fixing one threshold leaves the others at 128 kB.
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
    """Limit the kernels kept for the rest of this process. Has to come before its first computation."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS_KEPT))
