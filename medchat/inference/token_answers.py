"""Answers of one model, token by token: what a chat model needs of a vocabulary and a stepper. Imports no torch."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medchat.api import Delta, GenerationConfig, Segment
from medchat.errors import MemoryShortageError, UsageError
from medchat.inference.answer_deltas import DecodeStep, EncodedPrompt, TextFilter, go_on_deltas, stream_deltas
from medchat.inference.decode import (
    ChatTokenizer,
    ForgettingStepper,
    GenerationLimits,
    Stepper,
    stream_tokens,
)
from medchat.inference.memory_shortage import give_back_memory, raise_on_oom
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.prompt_ids import with_added_controls
from medchat.inference.prompt_lookup import PromptLookup, Speculation
from medchat.inference.reasoning import reasoning_behind
from medchat.language import say


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model says of itself in `describe`.

    `context_length` counts prompt and answer together. `details` are the family's own plain values;
    `notes` is what loading has to tell the user.
    """

    backbone: str
    path: Path
    context_length: int
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class TokenAnswers:
    """A vocabulary, a stepper, and what bounds answers. One caller at a time."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        stepper: ForgettingStepper,
        facts: ModelFacts,
        *,
        stop_ids: Collection[int] = (),
        token_count: int | None = None,
        cleanup: Callable[[], TextFilter] = StrippedAnswer,
    ) -> None:
        """`stop_ids` come on top of the tokenizer's; `cleanup` makes the filter of one answer.

        Ids from `token_count` on are rows of a padded embedding, no tokens, and never chosen.
        """
        self._tokenizer = tokenizer
        self._stepper = stepper
        self._facts = facts
        self._cleanup = cleanup
        #: What drafts have brought so far.
        self.speculation = Speculation()
        stops = frozenset(tokenizer.stop_ids) | frozenset(stop_ids)
        self._limits = GenerationLimits(stops, tokenizer.pad_token_id, facts.context_length, token_count)

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The vocabulary."""
        return self._tokenizer

    @property
    def stepper(self) -> ForgettingStepper:
        """The model one token at a time, with the cache of the last prompt."""
        return self._stepper

    @property
    def limits(self) -> GenerationLimits:
        """What ends and bounds a generated answer, apart from the caller's configuration."""
        return self._limits

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may take together."""
        return self._facts.context_length

    def reserve_positions(self, count: int) -> None:
        """Leave prompt and answer `count` tokens fewer: a prefix that is trained takes the positions before them."""
        room = self.context_length - count
        self._facts = replace(self._facts, context_length=room)
        self._limits = replace(self._limits, context_length=room)

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt, piece by piece, without beams."""
        ids = self._tokenizer.build_prompt(segments)
        steps = self._steps(self._stepper, ids, config, cancel)
        with self._freed_on_shortage():
            yield from self._deltas(steps, EncodedPrompt(len(ids), self._stepper), config, segments)

    def go_on(
        self, segments: Sequence[Segment], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Yield what comes after `answer`, which begins the answer to the prompt.

        Raises UsageError for beam search, which weighs an answer from its beginning.
        """
        if config.num_beams > 1:
            raise UsageError(
                say("束搜索不能续写未完成的回答", "beam search cannot continue an unfinished answer"),
                say("请先 /设置 num-beams 1", "first /set num-beams 1"),
            )
        prompt, begun = self._tokenizer.build_prompt(segments), self.answer_ids(answer)
        steps = self._steps(self.stepper_behind(len(prompt)), [*prompt, *begun], config, cancel)
        with self._freed_on_shortage():
            whole = EncodedPrompt(len(prompt) + len(begun), self._stepper)
            decoder, cleanup = self._tokenizer.stream(), self._cleanup()
            yield from go_on_deltas(
                steps, whole, decoder, answer=answer, answer_ids=begun, stops=config.stop, cleanup=cleanup
            )

    def _steps(
        self, stepper: Stepper, ids: Sequence[int], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[DecodeStep]:
        return stream_tokens(
            stepper if config.speculate == "off" else self._looking_ahead(stepper, config),
            ids,
            config,
            stop_ids=self._limits.stop_ids,
            context_length=self.context_length,
            cancel=cancel,
            token_count=self._limits.token_count,
        )

    def _looking_ahead(self, stepper: Stepper, config: GenerationConfig) -> Stepper:
        return PromptLookup(stepper, config, self.context_length, self.speculation)

    def stepper_behind(self, prompt_tokens: int) -> Stepper:
        """Return the stepper for `prompt_tokens` ids of prompt and an answer behind; overridden where they differ."""
        return self._stepper

    def count(self, segments: Sequence[Segment]) -> int:
        """Return the length of the prompt in tokens, special ones included."""
        return len(self.prompt_ids(segments))

    def prompt_ids(self, segments: Sequence[Segment]) -> Sequence[int]:
        """Return the ids of the prompt, special ones included."""
        return self._tokenizer.build_prompt(segments)

    def answer_ids(self, answer: str) -> Sequence[int]:
        """Return the ids of an answer that follows a prompt."""
        return self._tokenizer.encode(answer)

    def prompt_parts(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return the segments with the control tokens that the vocabulary puts among them."""
        return with_added_controls(segments, self.prompt_ids(segments), self._tokenizer.special_ids)

    @contextmanager
    def _freed_on_shortage(self) -> Iterator[None]:
        """Within this block a failed allocation raises MemoryShortageError, and what the answer took is given back."""
        try:
            with raise_on_oom():
                yield
        except MemoryShortageError as error:
            self._stepper.forget()
            # The frames that failed hold their tensors for as long as anybody holds the error.
            cause = error.__cause__
            traceback.clear_frames(cause.__traceback__ if cause else None)
            give_back_memory()
            raise

    def _deltas(
        self,
        steps: Iterator[DecodeStep],
        prompt: EncodedPrompt,
        config: GenerationConfig,
        segments: Sequence[Segment],
    ) -> Iterator[Delta]:
        return stream_deltas(
            steps,
            prompt,
            self._tokenizer.stream(),
            stops=config.stop,
            cleanup=self._cleanup(),
            reasoning=reasoning_behind(segments),
        )
