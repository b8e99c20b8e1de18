"""A chat model over a library that computes and chooses the tokens by itself: llama.cpp, a vendor's runtime. No torch.

A plugin says how texts become ids and ids tokens; what every answer must keep to is here.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from medchat.api import Completion, Delta, Finish, GenerationConfig, Segment
from medchat.inference.answer_deltas import (
    DecodeStep,
    EncodedPrompt,
    answer_room,
    completion_of,
    go_on_deltas,
    stream_deltas,
)
from medchat.inference.detokenizer import StreamText
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.prompt_ids import segment_ids, special_id, well_formed, with_added_controls
from medchat.inference.reasoning import reasoning_behind


class LibraryModel(ABC):
    """A chat model over a library that computes and chooses the tokens by itself. Fulfils `ContinuingModel`.

    A subclass sets the attributes in its `__init__` and writes the methods up to `close`; those behind follow:
    whole characters, stop texts, lengths, counts, cancelling, batches (one prompt after the other), refusals.
    """

    #: Tokens that prompt and answer may take together.
    context_length: int
    #: The ids of the special tokens by name. No text may become one of them.
    special_ids: Mapping[str, int]
    #: The id that ends an answer, which `score` looks for behind one.
    eos_token_id: int
    #: All ids that end an answer.
    stop_ids: Collection[int]
    #: The ids that the vocabulary puts in front of a prompt that does not begin with them (BOS).
    front_ids: Sequence[int] = ()
    #: What `describe` returns: at least `backbone`, `model`, `dtype` and `device`.
    facts: Mapping[str, Any]
    #: How many tokens of the prompt that was read last were kept from the one before, and not computed again.
    reused_tokens: int = 0

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of any text, none of them special."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, of special ones none; bytes of a character that is not whole yet as U+FFFD.

        One more id changes nothing of the text before it but such bytes at its end.
        """

    @abstractmethod
    def tokens(self, ids: Sequence[int], config: GenerationConfig) -> Generator[int, None, None]:
        """Yield the ids of the answer behind the ids of a prompt, each as it is chosen, without end.

        Closed where the answer ends, which may be behind any of them: what is kept for the next prompt must be
        right then too. Sampling, `greedy`, `repetition_penalty` and `seed` of the configuration are the library's to
        follow; lengths and stop texts are looked at here.
        """

    @abstractmethod
    def token_scores(self, prompt: Sequence[int], answer: Sequence[int]) -> Sequence[float]:
        """Return the natural log-probability of each id of `answer` behind `prompt`."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back; a second call does nothing."""

    # ------------------------------------------------------------ what follows

    def prompt_ids(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt. Raises UsageError for a special token that the vocabulary lacks."""
        ids = segment_ids(
            segments,
            lambda text: self.encode(well_formed(text)),
            lambda token: special_id(token, self.special_ids),
        )
        front = list(self.front_ids)
        return ids if ids[: len(front)] == front else [*front, *ids]

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer that follows a prompt, not those of a text that stands alone."""
        before, whole = self.encode("\n"), self.encode("\n" + well_formed(answer))
        return whole[len(before) :] if whole[: len(before)] == before else self.encode(well_formed(answer))

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """See `ChatModel`, as all that follows."""
        ids = self.prompt_ids(segments)
        yield from stream_deltas(
            self._steps(ids, config, cancel),
            EncodedPrompt(len(ids), self),
            StreamText(self._plain_text),
            stops=config.stop,
            cleanup=StrippedAnswer(),
            reasoning=reasoning_behind(segments),
        )

    def go_on(
        self, segments: Sequence[Segment], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        begun = self.answer_ids(answer)
        ids = [*self.prompt_ids(segments), *begun]
        yield from go_on_deltas(
            self._steps(ids, config, cancel),
            EncodedPrompt(len(ids), self),
            StreamText(self._plain_text),
            answer=answer,
            answer_ids=begun,
            stops=config.stop,
            cleanup=StrippedAnswer(),
        )

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        never = threading.Event()
        return [completion_of(self.stream(prompt, config, never)) for prompt in prompts]

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        prompt, target = self.prompt_ids(segments), [*self.answer_ids(answer), self.eos_token_id]
        answer_room(len(prompt) + len(target) - 1, GenerationConfig(), self.context_length)
        return tuple(self.token_scores(prompt, target))

    def count(self, segments: Sequence[Segment]) -> int:
        return len(self.prompt_ids(segments))

    def describe(self) -> Mapping[str, Any]:
        return self.facts

    def prompt_parts(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return the segments with the special tokens that `prompt_ids` puts among them."""
        return with_added_controls(segments, self.prompt_ids(segments), self.special_ids)

    def _steps(
        self, ids: Sequence[int], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[DecodeStep]:
        room = answer_room(len(ids), config, self.context_length)
        with closing(self.tokens(ids, config)) as tokens:
            for _ in range(room):
                if cancel.is_set():
                    break
                token = next(tokens, self.eos_token_id)
                if token in self.stop_ids:
                    yield DecodeStep(finish=Finish.STOP)
                    return
                yield DecodeStep(token=token)
        yield DecodeStep(finish=Finish.CANCELLED if cancel.is_set() else Finish.LENGTH)

    def _plain_text(self, ids: Sequence[int]) -> str:
        special = set(self.special_ids.values())
        return self.decode([token for token in ids if token not in special])
