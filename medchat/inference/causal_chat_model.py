"""The chat model of any causal language model of transformers: LLaMA, Bloom, Huozi and their kin.

    CausalChatModel(model, tokenizer, ModelFacts("llama", folder, 2048))

A family supplies the model (`medchat.inference.load_weights`), a `ChatTokenizer` with its quirks, and its facts. Not
for ChatGLM v1, whose prompt attends in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from medchat.inference.answer_deltas import TextFilter
from medchat.inference.causal_rows import CausalRows
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.decode import ChatTokenizer
from medchat.inference.device import dtype_of
from medchat.inference.kv_cache import CausalStepper, keeps_every_key
from medchat.inference.native_model import NativeModel
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.scoring import PromptToScore, score_causal
from medchat.inference.token_answers import ModelFacts


class CausalChatModel(TokenChatModel):
    """Keeps the keys and values that a turn shares with the one before; pads batches on the left."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: ChatTokenizer,
        facts: ModelFacts,
        *,
        native: NativeModel | None = None,
        stop_ids: Collection[int] = (),
        token_count: int | None = None,
        cleanup: Callable[[], TextFilter] = StrippedAnswer,
    ) -> None:
        """`stop_ids` come on top of the tokenizer's; `cleanup` makes the filter of one answer; `native` as above.

        Ids from `token_count` on are rows of a padded embedding, no tokens, and never chosen.
        """
        super().__init__(
            model,
            tokenizer,
            CausalStepper(model),
            facts,
            native=native,
            stop_ids=stop_ids,
            token_count=token_count,
            cleanup=cleanup,
        )

    def logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
        ids = torch.tensor([[*prompt, *target[:-1]]], device=self._model.device)
        mask = torch.ones_like(ids)
        output = self._model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=len(target))
        logits: Tensor = output.logits[0]
        return logits

    def joint_rows(self) -> CausalRows | None:
        """Return sequences that are computed together, in float32 and where the model keeps all keys."""
        exact = dtype_of(self._model) == torch.float32 and keeps_every_key(self._model)
        return CausalRows(self._model) if exact else None

    def score_rows(self, rows: Sequence[PromptToScore]) -> list[list[tuple[float, ...]]]:
        """Return the scores of the answers to each prompt, which is read once, and several prompts together."""
        if not keeps_every_key(self._model):
            return super().score_rows(rows)
        return score_causal(self._model, rows, self._tokenizer.pad_token_id)
