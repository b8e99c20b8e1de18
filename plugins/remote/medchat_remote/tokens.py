"""Counting tokens without a tokenizer: a guess on the high side, so that what is sent fits."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: What a chat template puts around a message: markers, the role, line ends.
AROUND_MESSAGE = 6
_ASCII_CHARACTERS_IN_A_TOKEN = 3


def guess(texts: Iterable[str]) -> int:
    """Return about how many tokens the texts take: one a character beyond ASCII, one for three of ASCII.

    Vocabularies made for Chinese take fewer (about 0.6 a character), byte-level ones of the first LLaMA
    more (up to 3): where the endpoint has a tokenizer to ask, it is asked instead.
    """
    total = 0
    for text in texts:
        ascii_length = sum(character.isascii() for character in text)
        total += len(text) - ascii_length + math.ceil(ascii_length / _ASCII_CHARACTERS_IN_A_TOKEN)
    return total
