"""Choosing the next token from logits. Independent of models, text or where an answer ends.

The filters are those of transformers, in its order: repetition penalty, temperature, top-k, top-p. A token is chosen
on the CPU with a generator of its own, so that one seed means one answer on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from medchat.api import GenerationConfig
from medchat.errors import MedchatError
from medchat.inference.token_draw import SMALLEST_DIVISOR, TokenFilters, draw
from medchat.language import say


def refuse_non_finite(logits: Tensor) -> None:
    """Raise MedchatError if any of the logits is NaN or infinite: no choice among them means anything.

    Any shape.
    """
    # A sum is NaN or infinite where one of its terms is; where it is too large itself, each is looked at.
    if not math.isfinite(logits.sum(dtype=torch.float32)) and not bool(torch.isfinite(logits).all()):
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
        self._seen = torch.tensor([list(dict.fromkeys(prompt_ids))], dtype=torch.long)
        self._penalty = RepetitionPenaltyLogitsProcessor(max(config.repetition_penalty, SMALLEST_DIVISOR))
        self._filters = TokenFilters(config)
        self._generator = torch.Generator()
        if config.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(config.seed)

    def choose(self, logits: Tensor) -> int:
        """Return the next token id from `logits` [V] of any float dtype. Raises MedchatError on NaN or infinity."""
        refuse_non_finite(logits)
        scores = logits[: self._token_count].detach().float().cpu()
        if self._penalises:
            scores = self._penalised(scores)
        token = draw(scores, self._filters, self._generator) if self._samples else int(scores.argmax())
        if self._penalises and not bool((self._seen == token).any()):
            self._seen = torch.cat((self._seen, torch.tensor([[token]])), dim=1)
        return token

    def _penalised(self, scores: Tensor) -> Tensor:
        seen, limits = scores[self._seen], torch.finfo(scores.dtype)
        lower = self._penalty(torch.arange(seen.shape[1]).unsqueeze(0), seen)
        # A penalty near zero divides into infinity, and infinity minus infinity in the draw would be NaN.
        return scores.index_put((self._seen,), lower.clamp(limits.min, limits.max))
