"""A loaded ChatGLM as the chat engine sees it (`medchat.api.ChatModel`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from medchat.api import Delta, GenerationConfig, LoadOptions, Segment
from medchat.inference.chat_model import ModelFacts, TokenChatModel
from medchat_chatglm import position_rules
from medchat_chatglm.cleanup import StreamingResponse
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.stepper import ChatGLMStepper
from medchat_chatglm.tokenizer import ChatGLMTokenizer


def load_chatglm_chat(options: LoadOptions) -> ChatGLMChatModel:
    """Load a checkpoint folder. Raises CheckpointError or MemoryShortageError."""
    from medchat_chatglm.loading import load_model

    loaded = load_model(options)
    return ChatGLMChatModel(loaded.model, loaded.tokenizer, path=options.model, notes=loaded.notes)


class ChatGLMChatModel(TokenChatModel):
    """One model and its tokenizer. One caller at a time; the prompt is read anew each turn."""

    _model: ChatGLMForConditionalGeneration

    def __init__(
        self,
        model: ChatGLMForConditionalGeneration,
        tokenizer: ChatGLMTokenizer,
        *,
        path: Path,
        notes: tuple[str, ...] = (),
    ) -> None:
        """`path` is what `describe` calls the model; `notes` is what loading has to tell the user."""
        config = model.config
        details = {
            "quantization": f"int{config.quantization_bit}" if config.quantization_bit else "none",
            "rule": str(config.rule),
            "vocab_size": config.vocab_size,
        }
        eos = config.eos_token_id
        super().__init__(
            model,
            tokenizer,
            ChatGLMStepper(model),
            ModelFacts("chatglm", path, int(config.max_sequence_length), details, notes),
            # Med checkpoints end with the old tokenizer's `</s>`, plain ones with `<eop>`.
            stop_ids={eos} if isinstance(eos, int) else set(eos or ()),
            cleanup=partial(StreamingResponse, full_width=tokenizer.generation == "v11"),
        )

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt, piece by piece; beam search gives its answer whole, at the end."""
        try:
            yield from super().stream(segments, config, cancel)
        finally:
            # The next turn could not use it: its question changes every state of this one.
            self._stepper.forget()

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
