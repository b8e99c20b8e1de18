"""The chat model of any causal language model of transformers: LLaMA, Bloom, Huozi and their kin.

    CausalChatModel(model, tokenizer, ModelFacts("llama", folder, 2048))

A plugin supplies the model (`medchat.torchside.load`), a `ChatTokenizer` with the family's quirks, and
its facts. Not for ChatGLM v1, whose prompt attends in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from medchat.torchside.chat_model import ChatTokenizer, ModelFacts, TokenChatModel
from medchat.torchside.decode import TextFilter, Unchanged
from medchat.torchside.prefix_cache import CausalStepper


class CausalChatModel(TokenChatModel):
    """Keeps the keys and values that a turn shares with the one before; pads batches on the left."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: ChatTokenizer,
        facts: ModelFacts,
        *,
        stop_ids: Collection[int] = (),
        token_count: int | None = None,
        cleanup: Callable[[], TextFilter] = Unchanged,
    ) -> None:
        """`stop_ids` come on top of the tokenizer's; `cleanup` makes the filter of one answer.

        Ids from `token_count` on are rows of a padded embedding, no tokens, and never chosen.
        """
        super().__init__(
            model,
            tokenizer,
            CausalStepper(model),
            facts,
            stop_ids=stop_ids,
            token_count=token_count,
            cleanup=cleanup,
        )

    def _logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
        ids = torch.tensor([[*prompt, *target[:-1]]], device=self._model.device)
        output = self._model(input_ids=ids, use_cache=False, logits_to_keep=len(target))
        logits: Tensor = output.logits[0]
        return logits
