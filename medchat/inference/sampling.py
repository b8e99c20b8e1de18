"""Choosing the next token from logits. Knows nothing of models, text or where an answer ends.

The filters are transformers' own logits processors, in its order: repetition penalty, temperature,
top-k, top-p. Randomness comes from a generator on the CPU, so that one seed means one answer on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medchat.api import GenerationConfig
from medchat.errors import MedchatError
from medchat.language import say

#: Temperatures and penalties below this act as this: nearer to zero they vanish in float32, and 0/0 is NaN.
_SMALLEST_DIVISOR = 1e-30


def refuse_non_finite(logits: Tensor) -> None:
    """Raise MedchatError if any of the logits is NaN or infinite: no choice among them means anything.

    Any shape.
    """
    if not bool(torch.isfinite(logits).all()):
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
        self._seen = list(prompt_ids) if self._penalises else []
        self._penalty = RepetitionPenaltyLogitsProcessor(max(config.repetition_penalty, _SMALLEST_DIVISOR))
        self._filters = _sampling_filters(config)
        self._generator = torch.Generator()
        if config.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(config.seed)

    def choose(self, logits: Tensor) -> int:
        """Return the next token id from `logits` [V] of any float dtype. Raises MedchatError on NaN or infinity."""
        refuse_non_finite(logits)
        scores = logits[: self._token_count].detach().float().unsqueeze(0)
        if self._penalises:
            seen = torch.tensor([self._seen], dtype=torch.long, device=scores.device)
            limits = torch.finfo(scores.dtype)
            # A penalty near zero divides into infinity, and infinity minus infinity below would be NaN.
            scores = self._penalty(seen, scores).clamp(limits.min, limits.max)
        token = self._draw(scores) if self._samples else int(scores.argmax())
        if self._penalises:
            self._seen.append(token)
        return token

    def _draw(self, scores: Tensor) -> int:
        # Softmax does not mind the shift, and a temperature near zero then cannot overflow.
        scores = scores - scores.max()
        filtered = self._filters(torch.empty(1, 0, dtype=torch.long), scores)
        probabilities = filtered.softmax(dim=-1).cpu()
        return int(torch.multinomial(probabilities[0], 1, generator=self._generator))


def _sampling_filters(config: GenerationConfig) -> LogitsProcessorList:
    filters = LogitsProcessorList()
    if config.temperature != 1.0:
        filters.append(TemperatureLogitsWarper(max(float(config.temperature), _SMALLEST_DIVISOR)))
    if config.top_k:
        filters.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1.0:
        filters.append(TopPLogitsWarper(float(config.top_p)))
    return filters
