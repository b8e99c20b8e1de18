"""From a template's segments to token ids, for any tokenizer. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from medchat.api import Control, Segment, Text


def segment_ids(
    segments: Iterable[Segment], encode: Callable[[str], list[int]], id_of: Callable[[str], int]
) -> list[int]:
    """Return one id a `Control`, and the ids of each run of adjacent `Text` encoded as one string.

    Joined first because vocabularies merge across the borders: parts encoded alone give other ids.
    """
    ids: list[int] = []
    for is_words, run in groupby(segments, key=lambda segment: isinstance(segment, Text)):
        if is_words:
            ids += encode("".join(segment.text for segment in run if isinstance(segment, Text)))
        else:
            ids += [id_of(segment.token) for segment in run if isinstance(segment, Control)]
    return ids


def well_formed(text: str) -> str:
    """Return `text` with surrogate pairs joined and lone surrogates, which no UTF-8 has, as U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
