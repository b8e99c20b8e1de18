"""Sizes as publishers and disk tools state them: powers of ten."""

from __future__ import annotations


def amount(size: int) -> str:
    """Return a number of bytes in words: 13.4 GB, 790 MB, 472 B."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
