"""A loaded ChatGLM as the chat engine sees it (`medchat.api.ChatModel`)."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medchat.api import Completion, Delta, GenerationConfig, LoadOptions, Segment
from medchat.torchside.batch import BatchAnswer, Limits, generate_rows
from medchat.torchside.decode import Prompt, Step, answer_room, stream_deltas, stream_tokens
from medchat_chatglm import rules
from medchat_chatglm.cleanup import StreamingResponse
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.stepping import ChatGLMStepper
from medchat_chatglm.tokenizer import ChatGLMTokenizer


def load_chat_model(options: LoadOptions) -> ChatGLMChatModel:
    """Load a checkpoint folder. Raises CheckpointError or MemoryShortageError."""
    from medchat_chatglm.loading import load_model

    loaded = load_model(options)
    return ChatGLMChatModel(loaded.model, loaded.tokenizer, path=options.model, notes=loaded.notes)


class ChatGLMChatModel:
    """One model and its tokenizer. One caller at a time; the prompt is read anew each turn."""

    def __init__(
        self,
        model: ChatGLMForConditionalGeneration,
        tokenizer: ChatGLMTokenizer,
        *,
        path: Path,
        notes: tuple[str, ...] = (),
    ) -> None:
        """`path` is what `describe` calls the model; `notes` is what loading has to tell the user."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._path = path
        self._notes = notes
        self._stepper = ChatGLMStepper(model)
        eos = model.config.eos_token_id
        from_config = {eos} if isinstance(eos, int) else set(eos or ())
        # Med checkpoints end with the old tokenizer's `</s>`, plain ones with `<eop>` (section 7).
        stop_ids = frozenset(from_config) | tokenizer.stop_ids
        self._limits = Limits(stop_ids, tokenizer.pad_token_id, self.context_length)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may take together."""
        return int(self._model.config.max_sequence_length)

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt, piece by piece; beam search gives its answer whole, at the end."""
        ids = self._tokenizer.build_prompt(segments)
        if config.num_beams > 1:
            steps = _replay(generate_rows(self._model, [ids], config, self._limits, cancel)[0])
            yield from self._deltas(steps, Prompt(len(ids)), config)
            return
        steps = stream_tokens(
            self._stepper,
            ids,
            config,
            stop_ids=self._limits.stop_ids,
            context_length=self.context_length,
            cancel=cancel,
        )
        try:
            yield from self._deltas(steps, Prompt(len(ids), self._stepper), config)
        finally:
            # The next turn could not use it: its question changes every state of this one.
            self._stepper.forget()

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        """Answer several prompts at once, in their order. Each equals what it would be alone."""
        rows = [self._tokenizer.build_prompt(segments) for segments in prompts]
        answers = generate_rows(self._model, rows, config, self._limits)
        return [self._completion(answer, len(row), config) for answer, row in zip(answers, rows, strict=True)]

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer` and of the end token after it.

        The end token is the one the tokenizer's generation was trained with. Raises UsageError if the
        whole does not fit the context.
        """
        prompt = self._tokenizer.build_prompt(segments)
        target = [*self._tokenizer.encode(answer), self._tokenizer.eos_token_id]
        answer_room(len(prompt) + len(target) - 1, GenerationConfig(), self.context_length)
        model, rule = self._model, self._model.config.rule
        ids = torch.tensor([[*prompt, *target[:-1]]], device=model.device)
        length = ids.shape[1]
        marks = rules.find_landmarks(ids, model.special_ids, rule)
        marks = replace(marks, end=torch.full_like(marks.end, len(prompt)))
        with torch.inference_mode():
            logits = model(
                ids,
                position_ids=rules.prompt_positions(marks, rule, length),
                attention_mask=rules.prompt_visible(marks, rule, length),
                use_cache=False,
                logits_to_keep=len(target),
            ).logits[0]
        chosen = logits.float().log_softmax(-1).gather(-1, torch.tensor(target, device=model.device)[:, None])
        return tuple(chosen[:, 0].tolist())

    def count(self, segments: Sequence[Segment]) -> int:
        """Return the length of the prompt in tokens, special ones included."""
        return len(self._tokenizer.build_prompt(segments))

    def describe(self) -> Mapping[str, Any]:
        """Return what is loaded, in plain values."""
        config = self._model.config
        return {
            "backbone": "chatglm",
            "model": str(self._path),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": str(self._model.device),
            "parameters": self._model.num_parameters(),
            "quantization": f"int{config.quantization_bit}" if config.quantization_bit else "none",
            "rule": str(config.rule),
            "vocab_size": config.vocab_size,
            "context_length": self.context_length,
            "notes": self._notes,
        }

    def close(self) -> None:
        """Give the memory back. The model must not be used afterwards."""
        self._stepper.forget()
        del self._model, self._stepper
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _deltas(self, steps: Iterator[Step], prompt: Prompt, config: GenerationConfig) -> Iterator[Delta]:
        cleanup = StreamingResponse(full_width=self._tokenizer.generation == "v11")
        return stream_deltas(steps, prompt, self._tokenizer.stream(), stops=config.stop, cleanup=cleanup)

    def _completion(self, answer: BatchAnswer, prompt_tokens: int, config: GenerationConfig) -> Completion:
        deltas = list(self._deltas(_replay(answer), Prompt(prompt_tokens), config))
        last = deltas[-1]
        text = "".join(delta.text for delta in deltas)
        return Completion(text, last.finish or answer.finish, prompt_tokens, last.completion_tokens)


def _replay(answer: BatchAnswer) -> Iterator[Step]:
    for token in answer.tokens:
        yield Step(token=token)
    yield Step(finish=answer.finish)
