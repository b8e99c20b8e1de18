"""Texts that are alike: candidates by MinHash over pairs of neighbouring characters, then the exact Jaccard index.

Chinese has no blanks between words, so a text is the set of its character pairs (Leskovec, Rajaraman, Ullman, Mining
of Massive Datasets, chapter 3). Knows no records and no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medchat.plugin_kit import require_extra

PERMUTATIONS = 128
#: Texts with this Jaccard index or more are alike.
THRESHOLD = 0.8
#: Candidates are looked for this far below: at the threshold itself every other one would be missed.
_LOOSER = 0.2


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two texts that are alike, by their numbers, `first` the lower one, and their exact Jaccard index."""

    first: int
    second: int
    jaccard: float


@dataclass(frozen=True, slots=True)
class LikeTexts:
    """The pairs that are alike, and how many `candidates` MinHash gave for them."""

    pairs: tuple[Likeness, ...]
    candidates: int


def like_texts(texts: Sequence[str], threshold: float = THRESHOLD, *, against: int = 0) -> LikeTexts:
    """Return which texts are alike, in order. With `against`, only pairs of one of the first so many and a later one.

    Raises UsageError where datasketch is not installed.
    """
    sets = [_pieces(text) for text in texts]
    found = _candidates(sets, max(0.1, threshold - _LOOSER), against)
    exact = [Likeness(*pair, _jaccard(sets[pair[0]], sets[pair[1]])) for pair in sorted(found)]
    return LikeTexts(tuple(pair for pair in exact if pair.jaccard >= threshold), len(found))


def nearest(texts: Sequence[str], others: Sequence[str]) -> Likeness | None:
    """Return the text that is most like one of `others`, with its number there as `second`; None without either.

    Compares every pair that shares a character pair: time grows with the product of the two numbers.
    """
    places: dict[str, list[int]] = defaultdict(list)
    sizes = []
    for number, other in enumerate(others):
        pieces = _pieces(other)
        sizes.append(len(pieces))
        for piece in pieces:
            places[piece].append(number)
    lengths = np.asarray(sizes)
    best: Likeness | None = None
    for number, text in enumerate(texts if sizes else ()):
        pieces = _pieces(text)
        shared = np.zeros(len(lengths), dtype=np.int64)
        for piece in pieces:
            shared[places.get(piece, [])] += 1
        indices = shared / (lengths + len(pieces) - shared)
        at = int(indices.argmax())
        if best is None or indices[at] > best.jaccard:
            best = Likeness(number, at, float(indices[at]))
    return best


def _pieces(text: str) -> frozenset[str]:
    return frozenset(text[at : at + 2] for at in range(max(1, len(text) - 1)))


def _candidates(sets: Sequence[frozenset[str]], threshold: float, against: int) -> set[tuple[int, int]]:
    sketch = _datasketch()
    index = sketch.MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    hashed = [[piece.encode(errors="surrogatepass") for piece in pieces] for pieces in sets]
    found: set[tuple[int, int]] = set()
    for number, minhash in enumerate(sketch.MinHash.generator(hashed, num_perm=PERMUTATIONS)):
        if not against or number >= against:
            found.update((earlier, number) for earlier in index.query(minhash))
        if not against or number < against:
            index.insert(number, minhash)
    return found


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def _datasketch() -> Any:
    require_extra("data", "datasketch")
    import datasketch

    return datasketch
