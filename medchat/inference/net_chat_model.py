"""A chat model of any torch module that turns ids into logits: nothing is kept from token to token.

    NetChatModel(net, tokenizer, ModelFacts("mine", folder, 512))

The net is called with ids [1, T] and returns the logits [1, T, V] of what follows each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medchat.api import Finish, GenerationConfig
from medchat.errors import UsageError
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.decode import ChatTokenizer, stream_tokens
from medchat.inference.device import device_of
from medchat.inference.generate import BatchAnswer
from medchat.inference.memory_shortage import raise_on_oom
from medchat.inference.token_answers import ModelFacts
from medchat.language import say


class WholeStepper:
    """Computes everything again for each token: right for every causal net, and slow for long texts."""

    #: Nothing is kept.
    reused_tokens = 0

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._ids: list[int] = []

    def prefill(
        self, ids: Sequence[int], cancel: threading.Event, *, prompt_tokens: int | None = None
    ) -> Tensor:
        """Read the prompt, and an answer that has begun like it. Returns logits [V]."""
        self._ids = list(ids)
        return net_logits(self._net, self._ids)[-1]

    def advance(self, token: int) -> Tensor:
        """Append one token. Returns logits [V]."""
        self._ids.append(token)
        return net_logits(self._net, self._ids)[-1]

    def forget(self) -> None:
        """Drop the ids."""
        self._ids = []


class NetChatModel(TokenChatModel):
    """Samples, scores and streams as every model does; answers of a batch come one after the other, no beams."""

    def __init__(
        self, net: nn.Module, tokenizer: ChatTokenizer, facts: ModelFacts, *, token_count: int | None = None
    ) -> None:
        """Ids from `token_count` on are rows of a padded embedding, no tokens, and never chosen."""
        super().__init__(net, tokenizer, WholeStepper(net), facts, token_count=token_count)

    def answer_rows(
        self, rows: Sequence[Sequence[int]], config: GenerationConfig, cancel: threading.Event | None
    ) -> list[BatchAnswer]:
        """Answer one prompt after the other. Raises UsageError for beam search."""
        if config.num_beams > 1:
            raise UsageError(
                say("这个模型没有束搜索", "this model has no beam search"),
                say("请去掉 --num-beams", "drop --num-beams"),
            )
        return [self._answer(row, config, cancel or threading.Event()) for row in rows]

    def logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
        return net_logits(self._model, [*prompt, *target[:-1]])[-len(target) :]

    def _answer(self, row: Sequence[int], config: GenerationConfig, cancel: threading.Event) -> BatchAnswer:
        tokens: list[int] = []
        limits = self.limits
        with raise_on_oom():
            for step in stream_tokens(
                self.stepper,
                row,
                config,
                stop_ids=limits.stop_ids,
                context_length=limits.context_length,
                cancel=cancel,
                token_count=limits.token_count,
            ):
                if step.token is None:
                    return BatchAnswer(tuple(tokens), step.finish or Finish.ERROR)
                tokens.append(step.token)
        raise AssertionError("stream_tokens ends with the reason")


def takes_ids_alone(model: nn.Module) -> bool:
    """Say whether `model` is called with ids and returns logits: a `NetBackbone`'s, none of transformers."""
    return not hasattr(model, "prepare_inputs_for_generation")


# Not torch.inference_mode: what a net keeps for its next pass, such as a table of positions, is trained with later.
@torch.no_grad()
def net_logits(net: nn.Module, ids: Sequence[int]) -> Tensor:
    """Return the logits [T, V] that the net has for what follows each of the T ids."""
    logits: Tensor = net(torch.tensor([list(ids)], device=device_of(net)))[0]
    return logits
