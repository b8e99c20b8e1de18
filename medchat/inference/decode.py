"""The decode loop: from prompt ids to a stream of tokens.

Independent of any model family: a `Stepper` reads the prompt and takes one token at a time, whatever cache,
positions and masks that needs. Independent of vocabularies: a `ChatTokenizer` makes the ids of a prompt, and
its `TextDecoder` turns ids into text. Imports no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from medchat.api import Finish, GenerationConfig, Segment
from medchat.inference.answer_deltas import DecodeStep, PromptReader, TextDecoder, answer_room
from medchat.inference.interrupt import GenerationCancelled
from medchat.inference.sampling import Logits, TokenChooser


class Stepper(PromptReader, Protocol):
    """A model with its cache. Both calls return the logits [V] of the token that comes next."""

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> Logits:
        """Read a whole prompt. Raises Interrupted once `cancel` is set.

        Returns the logits [V] of what follows, in the model's dtype.
        """
        ...

    def advance(self, token: int) -> Logits:
        """Append one token to what has been read. Returns the logits [V] of what follows.

        May raise GenerationCancelled once the event that `prefill` got is set.
        """
        ...


class ChatTokenizer(Protocol):
    """What a chat model needs of a vocabulary. User text never becomes a special id in any of these."""

    @property
    def pad_token_id(self) -> int:
        """The id that fills the left of shorter rows; masked, so any id of the vocabulary will do."""
        ...

    @property
    def eos_token_id(self) -> int:
        """The id that ends an answer in training data, and in `score`."""
        ...

    @property
    def stop_ids(self) -> Collection[int]:
        """The ids that end an answer while generating."""
        ...

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The ids of the special tokens by name; no text encodes to any of them."""
        ...

    def build_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt, ready for the model: with what the family puts in front or behind.

        One id a `Control`; adjacent `Text` joined before encoding, special-token parsing off.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of an answer as it follows a prompt, no special ids among them."""
        ...

    def stream(self) -> TextDecoder:
        """Return a decoder for one answer; special ids give no text."""
        ...


class ForgettingStepper(Stepper, Protocol):
    """A stepper whose cache can be dropped."""

    def prefill(
        self, ids: Sequence[int], cancel: threading.Event, *, prompt_tokens: int | None = None
    ) -> Logits:
        """Read a prompt, and behind its first `prompt_tokens` the beginning of its answer. Returns logits [V]."""
        ...

    def forget(self) -> None:
        """Drop the cache, and with it its memory."""
        ...


class DraftVerifier(Protocol):
    """A stepper to which several tokens can be appended at once, and dropped again.

    Their logits have to be bit by bit those that the tokens get one after the other.
    """

    def advance_many(self, tokens: Sequence[int], cancel: threading.Event) -> Sequence[Logits]:
        """Append tokens. Returns the logits [T, V] of what follows each of them.

        Raises GenerationCancelled soon after `cancel` is set; then none is appended.
        """
        ...

    def crop(self, count: int) -> None:
        """Drop the last `count` tokens that were appended."""
        ...


def verifier_of(stepper: Stepper) -> DraftVerifier | None:
    """Return what verifies drafts behind the prompt that `stepper` has read: its `verifier`, if it has one."""
    verifier: DraftVerifier | None = getattr(stepper, "verifier", None)
    return verifier


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """What bounds the answers of one model: its end tokens and its context. `pad_id` fills the left.

    Ids from `token_count` on are rows of a padded embedding, no tokens, and never chosen.
    """

    stop_ids: Collection[int]
    pad_id: int
    context_length: int
    token_count: int | None = None


def stream_tokens(
    stepper: Stepper,
    prompt_ids: Sequence[int],
    config: GenerationConfig,
    *,
    stop_ids: Collection[int],
    context_length: int,
    cancel: threading.Event,
    token_count: int | None = None,
) -> Iterator[DecodeStep]:
    """Yield the tokens of one answer, then one Step with the reason it ended.

    Any of `stop_ids` ends it, as do `config.max_new_tokens` and the context (prompt and answer together
    take at most `context_length` tokens). Ids from `token_count` on are never chosen. Raises UsageError
    if the prompt alone is too long, MedchatError on non-finite logits.
    """
    room = answer_room(len(prompt_ids), config, context_length)
    chooser = TokenChooser(config, prompt_ids, token_count)
    if cancel.is_set():
        yield DecodeStep(finish=Finish.CANCELLED)
        return
    try:
        logits = stepper.prefill(prompt_ids, cancel)
    except GenerationCancelled:
        yield DecodeStep(finish=Finish.CANCELLED)
        return
    for remaining in range(room - 1, -1, -1):
        if cancel.is_set():
            yield DecodeStep(finish=Finish.CANCELLED)
            return
        token = chooser.choose(logits)
        if token in stop_ids:
            yield DecodeStep(finish=Finish.STOP)
            return
        yield DecodeStep(token=token)
        # The last token's own logits would be thrown away. A cancel set while the caller held the
        # token above must not cost one more forward pass either.
        if remaining and not cancel.is_set():
            with suppress(GenerationCancelled):
                logits = stepper.advance(token)
    yield DecodeStep(finish=Finish.CANCELLED if cancel.is_set() else Finish.LENGTH)
