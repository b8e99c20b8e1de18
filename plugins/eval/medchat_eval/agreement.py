"""How far two raters agree. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from medchat_eval.results import Metric, bootstrap_metric


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


def kappa_metric(one: Sequence[int], other: Sequence[int]) -> Metric:
    """Return `quadratic_kappa` with its bootstrap interval. Raises as that does."""
    pairs = list(zip(one, other, strict=True))

    def of(rows: Any) -> float:
        drawn = [pairs[at] for at in rows]
        return quadratic_kappa([ours for ours, _ in drawn], [theirs for _, theirs in drawn])

    return bootstrap_metric(of(range(len(pairs))), len(pairs), of, chance=0.0)
