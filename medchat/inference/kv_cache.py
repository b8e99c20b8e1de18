"""A stepper for any causal language model of transformers, which keeps its cache from turn to turn.

The next prompt of a chat begins with the last one and its answer. What the two have in common, compared
by token id and never by text, is not computed again: the cache is cut back to it and the rest is read.
For causal attention (LLaMA, Bloom, Huozi; rotary or ALiBi positions) that is exact. It is not for
ChatGLM v1, whose prompt attends in both directions
(docs/specs/performance.md, "Cache between turns").
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from medchat.inference.growing_cache import GrowingCacheLayer, growing_cache
from medchat.inference.interrupt import decoder_layers, interruptible
from medchat.inference.prompt_ids import common_prefix


def keeps_every_key(model: PreTrainedModel) -> bool:
    """Whether every layer of `model` caches plain keys and values of all tokens, as copying them takes for granted."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


class PaddedReader:
    """Reads rows of several lengths together with a causal model, the shorter ones padded on the left."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def read(self, ids: Tensor, mask: Tensor, cache: Cache, keep: int) -> Tensor:
        """Read `ids` [B, T] behind what `cache` holds; `mask` covers both. Returns logits [B, keep, V]: the last."""
        more: dict[str, Any] = {}
        if self._takes_positions:
            more["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
            **more,
        )
        logits: Tensor = output.logits
        return logits


def _can_be_cut_back(layer: CacheLayerMixin) -> bool:
    """Say whether the layer has all tokens still: one past its sliding window lacks what a shorter prompt would see."""
    if type(layer) is DynamicSlidingWindowLayer:
        return bool(layer.get_seq_length() < layer.sliding_window)
    return isinstance(layer, GrowingCacheLayer)


class CausalStepper:
    """Reads prompts and steps through answers with one causal model and one cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._layers = decoder_layers(model)
        self._cache: DynamicCache | None = None
        #: The ids whose keys and values the cache holds, in order.
        self._ids: list[int] = []
        self._reused = 0

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were still in the cache."""
        return self._reused

    def forget(self) -> None:
        """Drop the cache, and with it its memory."""
        self._cache, self._ids, self._reused = None, [], 0

    def prefill(
        self, ids: Sequence[int], cancel: threading.Event, *, prompt_tokens: int | None = None
    ) -> Tensor:
        """Read the prompt from where it departs from the cache. Returns logits [V]; raises Interrupted.

        An answer that has begun is read like the prompt.
        """
        # The last token is always read again: its logits are what the answer starts from.
        self._reused = self._cut_back(min(common_prefix(self._ids, ids), len(ids) - 1))
        with interruptible(self._layers, cancel):
            return self._read(ids[self._reused :])

    def advance(self, token: int) -> Tensor:
        """Append one token. Returns logits [V]."""
        return self._read([token])

    def lend_cache(self) -> tuple[DynamicCache, int]:
        """Give the cache away, with the number of tokens that it holds: until it is taken back, nothing can be read."""
        assert self._cache is not None
        cache, self._cache = self._cache, None
        return cache, len(self._ids)

    def take_cache(self, cache: DynamicCache, appended: Sequence[int]) -> None:
        """Take the cache back, to which `appended` were added elsewhere."""
        self._cache = cache
        self._ids.extend(appended)

    def _cut_back(self, keep: int) -> int:
        """Cut the cache back to its first `keep` tokens; return how many it has then."""
        cache = self._cache
        excess = len(self._ids) - keep
        if cache is None or (excess and not all(map(_can_be_cut_back, cache.layers))):
            keep = 0
        if keep == 0:
            self._cache, self._ids = None, []
        elif cache is not None and excess:
            cache.crop(-excess)
            del self._ids[keep:]
        return keep

    def _read(self, ids: Sequence[int]) -> Tensor:
        if self._cache is None:
            self._cache = growing_cache(self._model.config)
        device = self._model.device
        # Without a mask transformers takes an id of the padding token, which may be any other too, for padding.
        mask = torch.ones((1, len(self._ids) + len(ids)), dtype=torch.long, device=device)
        try:
            with torch.inference_mode():
                output = self._model(
                    input_ids=torch.tensor([list(ids)], device=device),
                    attention_mask=mask,
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except BaseException:
            # Some layers may hold the new tokens and some not.
            self.forget()
            raise
        self._ids.extend(ids)
        logits: Tensor = output.logits[0, -1]
        return logits
