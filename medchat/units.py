"""Numbers of a run in words, and a guess of how many tokens a text has. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable

_ASCII_CHARACTERS_IN_A_TOKEN = 3


def gib(size: float) -> str:
    """Return bytes as GiB, below a tenth of one as MiB, below one of those as KiB: memory comes in powers of two."""
    if size >= 0.1 * 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent."""
    return f"{part / whole:.2%}" if whole else "-"


def clock(seconds: float) -> str:
    """Return a length of time as 4:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# Sizes as publishers and disk tools state them: powers of ten.


def amount(size: int) -> str:
    """Return a number of bytes in words: 13.4 GB, 790 MB, 472 B."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def guess_tokens(texts: Iterable[str]) -> int:
    """Return about how many tokens the texts take: one a character beyond ASCII, one for three of ASCII.

    Vocabularies made for Chinese take fewer (about 0.6 a character), byte-level ones of the first LLaMA
    more (up to 3): where there is a tokenizer to ask, ask that.
    """
    total = 0
    for text in texts:
        ascii_length = sum(character.isascii() for character in text)
        total += len(text) - ascii_length + math.ceil(ascii_length / _ASCII_CHARACTERS_IN_A_TOKEN)
    return total
