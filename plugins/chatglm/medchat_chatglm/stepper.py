"""Prefill and token-by-token decoding (`medchat.inference.decode.Stepper`).

Nothing is cached between prompts: ChatGLM's prompt is bidirectional, so a new question changes the keys and
values of everything before it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from medchat.inference.growing_cache import growing_cache
from medchat.inference.interrupt import decoder_layers, interruptible
from medchat.plugin_kit import UsageError, say
from medchat_chatglm import position_rules
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration


class ChatGLMStepper:
    """One model, one cache, one sequence at a time."""

    def __init__(self, model: ChatGLMForConditionalGeneration) -> None:
        self._model = model
        self._layers = decoder_layers(model)
        self._cache: Cache | None = None
        self._position = 0
        self._block = 0

    @property
    def reused_tokens(self) -> int:
        """Always 0: a bidirectional prompt cannot reuse the last one's cache."""
        return 0

    @property
    def cache(self) -> Cache | None:
        """The keys and values of all tokens so far, after those of a P-tuning prefix."""
        return self._cache

    def forget(self) -> None:
        """Free the cache."""
        self._cache = None

    def prefill(
        self, ids: Sequence[int], cancel: threading.Event | None = None, *, prompt_tokens: int | None = None
    ) -> Tensor:
        """Prefill a complete prompt, special tokens included. Returns logits [V].

        Ids after the first `prompt_tokens` begin the answer and are read as if they had been generated.
        Raises DataError for a prompt without mask token and `<sop>`, Interrupted once `cancel` is set.
        """
        model, rule = self._model, self._model.config.rule
        self.forget()
        prompt = torch.tensor([list(ids)], device=model.device)
        marks = position_rules.find_landmarks(prompt, model.config.special_ids, rule)
        if prompt_tokens is not None:
            marks = replace(marks, end=torch.full_like(marks.end, prompt_tokens))
        cache = growing_cache(model.config)
        with interruptible(self._layers, cancel or threading.Event()):
            logits = self._read(
                prompt,
                position_rules.prompt_positions(marks, rule, len(ids)),
                position_rules.prompt_visible(marks, rule, len(ids)),
                cache,
            )
        self._cache = cache
        self._position = int(marks.at_last_token())
        self._block = len(ids) - int(marks.sop)
        return logits

    def advance(self, token: int) -> Tensor:
        """Append one token. Returns logits [V]; raises UsageError before any prefill."""
        if self._cache is None:
            raise _nothing_read()
        self._block += 1
        device = self._model.device
        positions = torch.tensor([[[self._position], [self._block]]], device=device)
        return self._read(torch.tensor([[token]], device=device), positions, None, self._cache)

    def read_answers(self, ids: Tensor) -> Tensor:
        """Read several answers [N, L] behind the prompt that was read, and forget it. Returns logits [N, L, V].

        Raises UsageError before any prefill.
        """
        if self._cache is None:
            raise _nothing_read()
        cache, (count, length) = self._cache, ids.shape
        self.forget()
        cache.batch_select_indices(torch.zeros(count, dtype=torch.long, device=ids.device))
        blocks = self._block + 1 + torch.arange(length, device=ids.device)
        positions = torch.stack([torch.full_like(blocks, self._position), blocks])
        logits: Tensor = self._model(
            ids, position_ids=positions.expand(count, -1, -1), past_key_values=cache, use_cache=True
        ).logits
        return logits

    def _read(self, ids: Tensor, positions: Tensor, visible: Tensor | None, cache: Cache) -> Tensor:
        try:
            with torch.inference_mode():
                output = self._model(
                    ids,
                    attention_mask=visible,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except BaseException:
            # After an error some layers may have the new tokens and some not.
            self.forget()
            raise
        logits: Tensor = output.logits[0, -1]
        return logits


def _nothing_read() -> UsageError:
    return UsageError(
        say("还没有读入提示词，无法继续生成", "nothing has been read yet"),
        say("请先调用 prefill", "call prefill first"),
    )
