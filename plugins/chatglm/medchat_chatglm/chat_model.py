"""A loaded ChatGLM as the chat engine sees it (`medchat.api.ChatModel`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from medchat.checkpoints.adapter_folder import files_passed_over
from medchat.inference.adapters.structure import kept_on_failure
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.engine import quantization_of
from medchat.inference.native_model import NativeModel
from medchat.inference.scoring import PromptToScore, score_behind
from medchat.inference.token_answers import ModelFacts
from medchat.plugin_kit import ChatModel, LoadOptions
from medchat_chatglm import position_rules
from medchat_chatglm.adapters import (
    PrefixAdapter,
    attach_chatglm_adapters,
    check_chatglm_fit,
    open_chatglm_adapter,
    refuse_other_generation,
)
from medchat_chatglm.cleanup import StreamingResponse
from medchat_chatglm.config_reading import with_stated_rule
from medchat_chatglm.configuration import read_configuration
from medchat_chatglm.fused import chatglm_parts, chatglm_sequence
from medchat_chatglm.loading import LoadedModel, load_model
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.native import NothingKept
from medchat_chatglm.stepper import ChatGLMStepper
from medchat_chatglm.tokenizer import ChatGLMTokenizer


def load_chatglm_chat(options: LoadOptions) -> ChatGLMChatModel:
    """Load a checkpoint folder. Raises CheckpointError or MemoryShortageError."""
    return _of_loaded(load_model(options))


def exchange_chatglm_adapters(chat: ChatModel, options: LoadOptions) -> ChatGLMChatModel | None:
    """Detach the adapters from the model of `chat` and attach those of `options`: see `medchat.api.Backbone`.

    None, without a change, if a prefix is attached or detached or the rule changes: the model is built for
    those.
    """
    before = chat.loaded if isinstance(chat, ChatGLMChatModel) else None
    if before is None:
        return None
    adapters = [open_chatglm_adapter(folder) for folder in options.adapters]
    if any(isinstance(adapter, PrefixAdapter) for adapter in (*before.adapters, *adapters)):
        return None
    config = read_configuration(options.model, with_stated_rule(options))
    if config.rule != before.config.rule:
        return None
    refuse_other_generation(adapters, config.generation)
    with kept_on_failure(before.model):
        before.bare.restore()
        check_chatglm_fit(before.model, adapters)
        attach_chatglm_adapters(before.model, adapters, before.device, before.dtype)
        before.model.eval()
    gone = files_passed_over(before.checkpoint, before.adapters)
    kept = tuple(note for note in before.notes if note not in gone)
    notes = (*kept, *files_passed_over(before.checkpoint, adapters))
    return _of_loaded(replace(before, adapters=tuple(adapters), notes=notes))


def _of_loaded(loaded: LoadedModel) -> ChatGLMChatModel:
    chat = ChatGLMChatModel(loaded.model, loaded.tokenizer, path=loaded.folder, notes=loaded.notes)
    chat.loaded = loaded
    return chat


class ChatGLMChatModel(NothingKept, TokenChatModel):
    """One model and its tokenizer. One caller at a time; the prompt is read again each turn."""

    _model: ChatGLMForConditionalGeneration
    #: The loaded weights, so that their adapters can be exchanged.
    loaded: LoadedModel | None = None

    def __init__(
        self,
        model: ChatGLMForConditionalGeneration,
        tokenizer: ChatGLMTokenizer,
        *,
        path: Path,
        notes: tuple[str, ...] = (),
    ) -> None:
        """`path` is the model's name in `describe`; `notes` are those of loading for the user."""
        config = model.config
        details = {
            "quantization": quantization_of(model),
            "rule": str(config.rule),
            "vocab_size": config.vocab_size,
        }
        super().__init__(
            model,
            tokenizer,
            ChatGLMStepper(model),
            ModelFacts("chatglm", path, int(config.max_sequence_length), details, notes),
            native=NativeModel(partial(chatglm_parts, model), partial(chatglm_sequence, model)),
            stop_ids=config.stop_ids,
            cleanup=partial(StreamingResponse, full_width=tokenizer.generation == "v11"),
        )

    def close(self) -> None:
        """Free the memory. The model must not be used afterwards."""
        self.loaded = None
        super().close()

    def logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
        model, rule = self._model, self._model.config.rule
        ids = torch.tensor([[*prompt, *target[:-1]]], device=model.device)
        length = ids.shape[1]
        marks = position_rules.find_landmarks(ids, model.special_ids, rule)
        marks = replace(marks, end=torch.full_like(marks.end, len(prompt)))
        logits: Tensor = model(
            ids,
            position_ids=position_rules.prompt_positions(marks, rule, length),
            attention_mask=position_rules.prompt_visible(marks, rule, length),
            use_cache=False,
            logits_to_keep=len(target),
        ).logits[0]
        return logits

    def score_rows(self, rows: Sequence[PromptToScore]) -> list[list[tuple[float, ...]]]:
        """Return the scores of the answers to each prompt, which is read once."""
        found, stepper = [], ChatGLMStepper(self._model)
        for row in rows:
            first = stepper.prefill(row.prompt)[None]
            found += score_behind(first, [row.targets], lambda ids, _: stepper.read_answers(ids))
        return found
