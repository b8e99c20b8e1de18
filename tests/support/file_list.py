"""The list in docs/files.md: each file that is read, its limit in words, and the module that reads it."""

from __future__ import annotations

import re

from locations import ROOT


def documented() -> list[tuple[str, str]]:
    """Return (limit, module) of each row."""
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    return re.findall(r"^\| [^|]+ \| ([^|]+) \| `([\w/.]+)` \|$", page, re.MULTILINE)


def size_of(limit: str) -> int | None:
    """Return the bytes of a limit in words, None for any size."""
    if limit == "any size":
        return None
    number, unit = limit.split()
    return int(number) * {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
