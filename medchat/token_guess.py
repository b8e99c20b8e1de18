"""Counting tokens without a tokenizer. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable

_ASCII_CHARACTERS_IN_A_TOKEN = 3


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
