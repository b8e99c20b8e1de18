"""Shares with their uncertainty. Pure functions; formulas by their usual names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The quantile of the normal distribution for intervals that hold the true value 95 times in 100.
_Z = 1.959963984540054
#: A number about the cases at the places that are drawn.
Statistic = Callable[[NDArray[Any]], float]


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of a 95 % interval."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether `value` is in it."""
        return self.low <= value <= self.high


def wilson(share: float, count: int) -> Interval:
    """Return Wilson's score interval (1927) of a share of `count` trials; everything for none."""
    if count == 0:
        return Interval(0.0, 1.0)
    scale = 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def mean_interval(values: Sequence[float], bounds: Interval | None = None) -> Interval | None:
    """Return the interval of a mean by the normal distribution, None for fewer than two values.

    It ends where `bounds`, the range that a value can have, end.
    """
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = _Z * math.sqrt(variance / len(values))
    least, most = (bounds.low, bounds.high) if bounds else (-math.inf, math.inf)
    return Interval(max(least, mean - half), min(most, mean + half))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact two-sided p: `only_first` cases are right in the first run alone, and so on."""
    trials = only_first + only_second
    if not trials:
        return 1.0
    tail = sum(math.comb(trials, at) for at in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**trials))


def bootstrap(count: int, statistic: Statistic, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return the percentile interval of `statistic` over `count` cases drawn with replacement; one seed, one result.

    Raises ValueError for no case.
    """
    if not count:
        raise ValueError("no case to draw")
    generator = np.random.default_rng(seed)
    drawn = [statistic(generator.integers(count, size=count)) for _ in range(draws)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(low), float(high))


def bootstrap_interval(differences: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return the bootstrap interval of the mean of paired differences. Raises ValueError for no difference."""
    values = np.asarray(differences, dtype=np.float64)
    return bootstrap(len(values), lambda at: float(values[at].mean()), seed=seed, draws=draws)
