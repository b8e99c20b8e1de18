"""Choosing the next token from logits. Independent of models, text or where an answer ends. Imports no torch.

The filters are those of transformers, in its order: repetition penalty, temperature, top-k, top-p. A token is chosen
on the CPU with a generator of its own, so that one seed means one answer on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medchat.api import GenerationConfig
from medchat.errors import MedchatError
from medchat.inference.token_draw import SMALLEST_DIVISOR, Floats, TokenFilters, draw
from medchat.inference.twister import Twister
from medchat.language import say


class TensorLike(Protocol):
    """What is used of a tensor of torch's, on any device."""

    def detach(self) -> Any:
        """Return the same values."""
        ...


#: Logits of any float dtype: torch's, or float32 in numpy.
Logits = Floats | TensorLike


def as_floats(logits: Logits) -> Floats:
    """Return `logits` of any shape in numpy, without a copy where they are float32 on the CPU."""
    if isinstance(logits, np.ndarray):
        return logits
    values: Floats = logits.detach().float().cpu().numpy()
    return values


def refuse_non_finite(logits: Logits) -> None:
    """Raise MedchatError if any of the logits is NaN or infinite: no choice among them means anything.

    Any shape.
    """
    values = as_floats(logits)
    # A sum is NaN or infinite where one of its terms is; where it is too large itself, each is looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        whole = float(values.sum())
    if not math.isfinite(whole) and not np.isfinite(values).all():
        raise MedchatError(
            say(
                "模型算出了无效数值（NaN 或无穷大），无法继续生成",
                "the model computed NaN or infinity and cannot go on",
            ),
            say(
                "请加上 --dtype float32 再试；若仍出现，权重可能已损坏",
                "try again with --dtype float32; if it persists, the weights may be damaged",
            ),
        )


class TokenChooser:
    """Chooses the tokens of one answer, one at a time, by one `GenerationConfig`."""

    def __init__(
        self, config: GenerationConfig, prompt_ids: Sequence[int], token_count: int | None = None
    ) -> None:
        """Ids from `token_count` on are never chosen: rows of a padded embedding that are no tokens."""
        self._token_count = token_count
        self._samples = config.samples
        self._penalises = config.repetition_penalty != 1.0
        self._penalty = np.float32(max(config.repetition_penalty, SMALLEST_DIVISOR))
        self._seen: NDArray[np.int64] = np.array(list(dict.fromkeys(prompt_ids)), np.int64)
        self._filters = TokenFilters(config)
        self._generator = Twister(config.seed)

    def choose(self, logits: Logits) -> int:
        """Return the next token id from `logits` [V] of any float dtype. Raises MedchatError on NaN or infinity."""
        scores = as_floats(logits)
        refuse_non_finite(scores)
        scores = scores[: self._token_count]
        if self._penalises:
            scores = self._penalised(scores)
        token = draw(scores, self._filters, self._generator) if self._samples else int(scores.argmax())
        if self._penalises and not (self._seen == token).any():
            self._seen = np.append(self._seen, token)
        return token

    def _penalised(self, scores: Floats) -> Floats:
        """Return a copy in which what was seen is less likely, as transformers' processor makes it."""
        seen, limits, lower = scores[self._seen], np.finfo(np.float32), scores.copy()
        with np.errstate(over="ignore"):
            changed = np.where(seen < 0, seen * self._penalty, seen / self._penalty)
        # A penalty near zero divides into infinity, and infinity minus infinity in the draw would be NaN.
        lower[self._seen] = changed.clip(limits.min, limits.max)
        return lower
