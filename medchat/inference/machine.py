"""What this machine has: threads, instructions for bfloat16, memory that is free. Imports no torch."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from medchat.regular_files import SYSTEM_BYTES, read_regular

#: Linux's names of the instructions for products of bfloat16: AVX512-BF16 and AMX, and ARM's.
_BFLOAT16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def thread_count() -> int:
    """Return how many threads torch computes with by default: what the environment says, or one a core."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        stated = os.environ.get(name, "").split(",")[0].strip()
        if stated.isdecimal() and int(stated):
            return int(stated)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


def has_bfloat16(description: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Say whether the CPU has instructions for products of bfloat16; None where the system does not tell."""
    try:
        stated = read_regular(description, SYSTEM_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", stated, re.MULTILINE)
    return None if found is None else not _BFLOAT16.isdisjoint(found[1].split())


def memory_room() -> int:
    """Return the bytes that this process can still take of the machine's memory without swapping.

    The smallest of: what the machine has free or reclaimable, what is left of every control group (container) around
    this process, what is left of the address space limit.
    """
    limits: list[int] = [psutil.virtual_memory().available, *control_group_room()]
    if sys.platform != "win32":
        import resource  # Unix only

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft - psutil.Process().memory_info().vms)
    return max(0, min(limits))


def control_group_room(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return limit minus use of each memory control group around this process; file cache counts as free."""
    try:
        lines = read_regular(own, SYSTEM_BYTES).decode("ascii").splitlines()
    except (OSError, ValueError):
        return []
    room = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, limit, use, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, cache = root / "memory", "total_inactive_file"
            limit, use = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            room += _room_of(folder, limit, use, cache)
    return room


def _stated(path: Path) -> str:
    return read_regular(path, SYSTEM_BYTES).decode("ascii")


def _room_of(folder: Path, limit: str, use: str, cache: str) -> list[int]:
    try:
        allowed = _stated(folder / limit).strip()
        if allowed == "max":
            return []
        used = int(_stated(folder / use))
        table = dict(line.split(maxsplit=1) for line in _stated(folder / "memory.stat").splitlines())
        return [int(allowed) - used + int(table.get(cache, 0))]
    except (OSError, ValueError):
        return []
