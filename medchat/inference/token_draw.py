"""Drawing one token by temperature, top-k and top-p without sorting the vocabulary. Imports no torch.

    token = draw(scores, TokenFilters(config), generator)

`reference_draw` says what is drawn: transformers' own filters, then torch's `multinomial`. Both walk through the whole
vocabulary several times, and a sort of 150528 scores alone takes longer than the layers of a small model. `draw`
returns the same token and leaves the generator in the same state: it looks at the few tokens that can come out, and
leaves the choice to `reference_draw` where rounding could decide it, which is rare.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medchat.api import GenerationConfig
from medchat.inference.cpu_engine.draw import draw_token
from medchat.inference.cpu_engine.library import EngineUnavailableError, open_library
from medchat.inference.twister import Twister

#: Temperatures and penalties below this act as this: nearer to zero they vanish in float32, and 0/0 is NaN.
SMALLEST_DIVISOR = 1e-30

#: What float32 can lose of the sum of a softmax for each entry (half a unit in the last place, sixteen sums side by
#: side), and in a quotient.
_SUM_ERROR, _QUOTIENT_ERROR = 2.0**-28, 1e-6

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class TokenFilters:
    """Temperature, top-k and top-p of a `GenerationConfig`, in the order of transformers."""

    def __init__(self, config: GenerationConfig) -> None:
        self.temperature = max(float(config.temperature), SMALLEST_DIVISOR)
        self.top_k, self.top_p = config.top_k, float(config.top_p)


def draw(scores: Floats, filters: TokenFilters, generator: Twister) -> int:
    """Return the id that `reference_draw` returns for `scores` [V], several times sooner."""
    before = generator.state
    token = _drawn(scores, filters, generator)
    if token is None:
        generator.state = before
        return draw_with_torch(scores, filters, generator)
    return token


def draw_with_torch(scores: Floats, filters: TokenFilters, generator: Twister) -> int:
    """Return the id that `reference_draw` returns."""
    from medchat.inference.reference_draw import reference_draw  # torch: seconds to import

    return reference_draw(scores, filters.temperature, filters.top_k, filters.top_p, generator)


def can_draw_natively() -> bool:
    """Say whether the compiled library is there."""
    try:
        open_library()
    except EngineUnavailableError:
        return False
    return True


def _drawn(scores: Floats, filters: TokenFilters, generator: Twister) -> int | None:
    if can_draw_natively():
        left_out = None if filters.top_p == 1.0 else 1.0 - filters.top_p
        token, generator.state = draw_token(
            scores, filters.temperature, left_out, generator.state, top_k=filters.top_k
        )
        return token
    # `multinomial` takes the token with the largest quotient of its probability and an exponential value; it makes
    # those values of the same uniform ones.
    uniform = generator.uniform(len(scores))
    with np.errstate(over="ignore"):  # a temperature near zero leaves all but the best at minus infinity
        shifted = (scores - scores.max()) / np.float32(filters.temperature)
    return _winner(shifted, filters, uniform)


def _winner(scores: Floats, filters: TokenFilters, uniform: Doubles) -> int | None:
    """Return the id that is drawn from `scores` [V], the largest of which is 0; None if rounding decides."""
    ids = None
    if 0 < filters.top_k < len(scores):
        ids = np.flatnonzero(scores >= np.partition(scores, -filters.top_k)[-filters.top_k])
        scores = scores[ids]
    weights = np.exp(scores)
    if filters.top_p == 1.0:
        best = _largest_quotient(weights, uniform if ids is None else uniform[ids])
    else:
        tail = _Tail(scores, weights, 1.0 - filters.top_p)
        ids = tail.likely if ids is None else ids[tail.likely]
        best = tail.winner(uniform[ids])
    return best if best is None or ids is None else int(ids[best])


def _largest_quotient(weights: Floats, uniform: Doubles) -> int | None:
    """Return where `weights` [N] over exponential values is largest, None if a second place is as good as equal.

    The exponential value of a uniform one u is -log(1 - u).
    """
    # That value is never below u, so what counts is wherever the quotient by u reaches one of the true quotients.
    with np.errstate(divide="ignore"):
        bounds = weights / uniform
        some = int(bounds.argmax())
        places = np.flatnonzero(bounds >= weights[some] / -np.log1p(-uniform[some]))
        quotients = weights[places] / -np.log1p(-uniform[places])
    best = int(quotients.argmax())
    if np.count_nonzero(quotients >= quotients[best] * (1 - 4 * _QUOTIENT_ERROR)) > 1:
        return None
    return int(places[best])


class _Tail:
    """The unlikeliest tokens that top-p leaves out: of equal ones sort decides which, so here they are in doubt."""

    def __init__(self, scores: Floats, weights: Floats, mass: float) -> None:
        """`weights` [N] are the exponentials of `scores` [N]; all that are outside have at most `mass` together."""
        self._slack = _QUOTIENT_ERROR + len(scores) * _SUM_ERROR
        self._mass, self._total = mass, float(weights.sum(dtype=np.float64))
        # All that lie lower have less than a quarter of the mass together.
        lowest = math.log(mass / 4 * self._total / len(scores)) if mass > 2 * self._slack else -math.inf
        #: Where those are that may be inside.
        self.likely = np.flatnonzero(scores >= lowest)
        self._scores, self._weights = scores[self.likely], weights[self.likely]
        self._lower = self._total - float(self._weights.sum(dtype=np.float64))

    def winner(self, uniform: Doubles) -> int | None:
        """Return which of `likely` has the largest quotient (`_largest_quotient`) of those inside; None if in doubt."""
        weights = self._weights.copy()
        while True:
            best = _largest_quotient(weights, uniform)
            if best is None or self._surely_inside(best):
                return best
            same_or_less = self._scores <= self._scores[best]
            if self._share(same_or_less) > self._mass - self._slack:
                return None
            weights[same_or_less] = 0

    def _surely_inside(self, place: int) -> bool:
        score = self._scores[place]
        if score == 0 and np.count_nonzero(self._scores == 0) == 1:
            return True  # the likeliest stays whatever its mass
        alone = float(self._weights[place]) / self._total
        return self._share(self._scores < score) + alone > self._mass + self._slack

    def _share(self, chosen: NDArray[np.bool_]) -> float:
        """Return the probability of the chosen of `likely` and of all that are not likely."""
        return (self._lower + float(self._weights.sum(dtype=np.float64, where=chosen))) / self._total
