"""How far two raters agree. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def exact_agreement(one: Sequence[object], other: Sequence[object]) -> float:
    """Return the share of cases on which both say the same; 0 for no case. Raises ValueError for unequal lengths."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one) if one else 0.0


def quadratic_kappa(one: Sequence[int], other: Sequence[int]) -> float:
    """Return Cohen's kappa with quadratic weights (1968): 1 is full agreement, 0 that of chance.

    1 where both always give the same single rating, which leaves nothing to disagree on. Raises ValueError for unequal
    lengths or no case.
    """
    pairs = list(zip(one, other, strict=True))
    if not pairs:
        raise ValueError("no case to agree on")
    observed = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    left, right = Counter(one), Counter(other)
    expected = (
        sum(count * times * (a - b) ** 2 for a, count in left.items() for b, times in right.items())
        / len(pairs) ** 2
    )
    return 1 - observed / expected if expected else 1.0
