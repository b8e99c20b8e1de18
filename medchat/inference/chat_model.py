"""A loaded model as the chat engine sees it (`medchat.api.ChatModel`): what all families share.

A family brings its model, its tokenizer and a stepper, and says how a prompt with a known answer is
read at once. Knows no attention pattern, no vocabulary and no template.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from medchat.api import Completion, Delta, GenerationConfig, Segment
from medchat.inference.answer_deltas import DecodeStep, EncodedPrompt, TextFilter, answer_room, completion_of
from medchat.inference.causal_rows import CausalRows
from medchat.inference.decode import ChatTokenizer, ForgettingStepper
from medchat.inference.device import device_of, dtype_of
from medchat.inference.engine import bytes_per_token, engine_of, parameter_count
from medchat.inference.fused_decoder import FusedDecoder
from medchat.inference.generate import BatchAnswer, generate_rows
from medchat.inference.joint_answers import JointAnswers
from medchat.inference.memory_shortage import give_back_memory, raise_on_oom
from medchat.inference.native_model import NativeModel, NativeStepper
from medchat.inference.native_rows import NativeRows, native_rows
from medchat.inference.native_scoring import score_native
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.scoring import PromptToScore, chosen_scores
from medchat.inference.token_answers import ModelFacts, TokenAnswers


class TokenChatModel(TokenAnswers, ABC):
    """One model of torch and its tokenizer. One caller at a time."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: ChatTokenizer,
        stepper: ForgettingStepper,
        facts: ModelFacts,
        *,
        native: NativeModel | None = None,
        stop_ids: Collection[int] = (),
        token_count: int | None = None,
        cleanup: Callable[[], TextFilter] = StrippedAnswer,
    ) -> None:
        """`stop_ids` come on top of the tokenizer's; `cleanup` makes the filter of one answer.

        `native` is how the native engine has the model, in place of `stepper` where it can compute all of it.
        Ids from `token_count` on are rows of a padded embedding, no tokens, and never chosen.
        """
        super().__init__(
            tokenizer,
            NativeStepper(native, stepper) if native else stepper,
            facts,
            stop_ids=stop_ids,
            token_count=token_count,
            cleanup=cleanup,
        )
        self._model: Any = model.eval()
        self._native = native
        self._joint: JointAnswers[Any] | None = None
        self._joint_decoder: FusedDecoder | None = None

    @property
    def model(self) -> Any:
        """The module itself, one of transformers or of a family's own: what fine-tuning trains."""
        return self._model

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt, piece by piece; beam search gives its answer whole, at the end."""
        if config.num_beams == 1:
            yield from super().stream(segments, config, cancel)
            return
        ids = self._tokenizer.build_prompt(segments)
        with self._freed_on_shortage():
            steps = _replay(self.answer_rows([ids], config, cancel)[0])
        yield from self._deltas(steps, EncodedPrompt(len(ids)), config, segments)

    @property
    def exact_in_batch(self) -> bool:
        """Whether answers in a batch are those of each alone: natively, and in float32 where torch can join them."""
        return self._joint_answers() is not None

    def stream_in_batch(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """As `stream`, together with other answers: see `BatchStreamingModel`. Beam search is computed alone."""
        joint = None if config.num_beams > 1 else self._joint_answers()
        if joint is None:
            yield from self.stream(segments, config, cancel)
            return
        ids = self._tokenizer.build_prompt(segments)
        with self._freed_on_shortage(), closing(joint.begin(ids, config, cancel)) as answer:
            yield from self._deltas(answer.steps(), EncodedPrompt(len(ids), answer), config, segments)

    def joint_rows(self) -> CausalRows | None:
        """Return sequences that torch computes together, each exactly as alone; None, the default, if it cannot."""
        return None

    def _joint_answers(self) -> JointAnswers[Any] | None:
        decoder = self._native.decoder() if self._native else None
        if self._joint is None or decoder is not self._joint_decoder:
            rows = NativeRows(self._native, decoder) if self._native and decoder else self.joint_rows()
            self._joint = None if rows is None else JointAnswers(rows, self._limits)
            self._joint_decoder = decoder
        return self._joint

    def generate_batch(
        self,
        prompts: Sequence[Sequence[Segment]],
        config: GenerationConfig,
        cancel: threading.Event | None = None,
    ) -> list[Completion]:
        """Answer several prompts at once, in their order; how far each equals what it would be alone: `ChatModel`.

        All end soon after `cancel` is set, those that had not ended with Finish.CANCELLED.
        """
        rows = [self._tokenizer.build_prompt(segments) for segments in prompts]
        answers = self.answer_rows(rows, config, cancel)
        return [
            self._completion(answer, EncodedPrompt(len(row)), config, segments)
            for answer, row, segments in zip(answers, rows, prompts, strict=True)
        ]

    def answer_rows(
        self, rows: Sequence[Sequence[int]], config: GenerationConfig, cancel: threading.Event | None
    ) -> list[BatchAnswer]:
        """Answer the prompts `rows` (token ids), in their order: here at once, as `generate_rows` does."""
        decoder = self._native.decoder() if self._native and config.num_beams == 1 else None
        if self._native is None or decoder is None:
            return generate_rows(self._model, rows, config, self._limits, cancel)
        return native_rows(self._native, decoder, rows, config, self._limits, cancel or threading.Event())

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer` and of the end token after it.

        Raises UsageError if prompt and answer together do not fit the context.
        """
        return self._scored(self._ids_to_score(segments, [answer]))[0]

    def score_batch(
        self, prompts: Sequence[Sequence[Segment]], answers: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, ...]]]:
        """Return for each prompt the scores of each of its answers: see `BatchScoringModel`.

        Raises UsageError if a prompt and one of its answers do not fit the context.
        """
        pairs = zip(prompts, answers, strict=True)
        rows = [self._ids_to_score(segments, options) for segments, options in pairs]
        decoder = self._native.decoder() if self._native else None
        with self._freed_on_shortage(), torch.inference_mode():
            if self._native is None or decoder is None:
                return self.score_rows(rows)
            return score_native(self._native.begin(decoder), decoder, rows)

    def score_rows(self, rows: Sequence[PromptToScore]) -> list[list[tuple[float, ...]]]:
        """Return the scores of the answers to each prompt: here one answer after the other."""
        return [self._scored(row) for row in rows]

    def _ids_to_score(self, segments: Sequence[Segment], answers: Sequence[str]) -> PromptToScore:
        prompt = self._tokenizer.build_prompt(segments)
        targets = [[*self.answer_ids(answer), self._tokenizer.eos_token_id] for answer in answers]
        longest = max(map(len, targets), default=1)
        answer_room(len(prompt) + longest - 1, GenerationConfig(), self.context_length)
        return PromptToScore(prompt, targets)

    def _scored(self, row: PromptToScore) -> list[tuple[float, ...]]:
        with torch.inference_mode(), raise_on_oom():
            return [
                chosen_scores(self._read_behind(row.prompt, target)[None], [target])[0]
                for target in row.targets
            ]

    def _read_behind(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
        native = self._native.logits_of_answer(prompt, target) if self._native else None
        return self.logits_of_answer(prompt, target) if native is None else native

    def describe(self) -> Mapping[str, Any]:
        """Return what is loaded, in plain values."""
        return {
            "backbone": self._facts.backbone,
            "model": str(self._facts.path),
            "dtype": str(dtype_of(self._model)).removeprefix("torch."),
            "device": str(device_of(self._model)),
            "engine": engine_of(self._model),
            "threads": torch.get_num_threads(),
            "parameters": parameter_count(self._model),
            "weight_bytes": bytes_per_token(self._model),
            "context_length": self.context_length,
            **self._facts.details,
            **self.speculation.describe(),
            "notes": self._facts.notes,
        }

    def close(self) -> None:
        """Give the memory back, once. The model must not be used afterwards."""
        if hasattr(self, "_model"):
            self._stepper.forget()
            self._joint = self._joint_decoder = None
            del self._model, self._stepper, self._native
            give_back_memory()

    @abstractmethod
    def logits_of_answer(self, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
        """Return the logits [T, V] that predict each of the T ids of `target` behind `prompt`."""

    def _completion(
        self,
        answer: BatchAnswer,
        prompt: EncodedPrompt,
        config: GenerationConfig,
        segments: Sequence[Segment],
    ) -> Completion:
        return completion_of(self._deltas(_replay(answer), prompt, config, segments))


def _replay(answer: BatchAnswer) -> Iterator[DecodeStep]:
    for token in answer.tokens:
        yield DecodeStep(token=token)
    yield DecodeStep(finish=answer.finish)
