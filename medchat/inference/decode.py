"""The decode loop: from prompt ids to a stream of tokens, and from tokens to the deltas of an answer.

Independent of any model family: a `Stepper` reads the prompt and takes one token at a time, whatever cache,
positions and masks that needs. Independent of vocabularies: a `ChatTokenizer` makes the ids of a prompt, and
its `TextDecoder` turns ids into text.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from medchat.api import Delta, Finish, GenerationConfig, Segment
from medchat.errors import UsageError
from medchat.inference.detokenizer import StopText
from medchat.inference.interrupt import GenerationCancelled
from medchat.inference.sampling import TokenChooser
from medchat.language import say


class Stepper(Protocol):
    """A model with its cache. Both calls return the logits [V] of the token that comes next."""

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were still in the cache and not computed again."""
        ...

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> Tensor:
        """Read a whole prompt. Raises Interrupted once `cancel` is set.

        Returns the logits [V] of what follows, in the model's dtype.
        """
        ...

    def advance(self, token: int) -> Tensor:
        """Append one token to what has been read. Returns the logits [V] of what follows."""
        ...


class TextDecoder(Protocol):
    """Turns token ids into text that is never taken back."""

    def feed(self, token: int) -> str:
        """Return the text that `token` completes, often one piece, sometimes none."""
        ...

    def finish(self) -> str:
        """Return what was held back. Called once, at the end."""
        ...


class TextFilter(Protocol):
    """Rewrites text as it streams (a family's own clean-up)."""

    def feed(self, text: str) -> str:
        """Return the part of the rewritten text that later input cannot change."""
        ...

    def finish(self) -> str:
        """Return the rest. Called once, at the end."""
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
    ) -> Tensor:
        """Read a prompt, and behind its first `prompt_tokens` the beginning of its answer. Returns logits [V]."""
        ...

    def forget(self) -> None:
        """Drop the cache, and with it its memory."""
        ...


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """One token of an answer, or its end: exactly one of the two is set. End tokens are not shown."""

    token: int | None = None
    finish: Finish | None = None


def answer_room(prompt_tokens: int, config: GenerationConfig, context_length: int) -> int:
    """Return how many tokens the answer may take.

    Raises UsageError for a prompt without a token, and for one that leaves no room for an answer.
    """
    if not prompt_tokens:
        raise UsageError(
            say("提示词是空的：没有一个词元", "the prompt is empty: it has no tokens"),
            say("请输入问题，或换一个 --template", "ask something, or use another --template"),
        )
    if prompt_tokens >= context_length:
        raise UsageError(
            say(
                f"输入有 {prompt_tokens} 个词元，已占满模型的上下文（{context_length}）",
                f"the prompt has {prompt_tokens} tokens and fills the model's context ({context_length})",
            ),
            say("请缩短问题，或用 /新建 开始新会话", "shorten the question, or start over with /new"),
        )
    return min(config.max_new_tokens, context_length - prompt_tokens)


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
            logits = stepper.advance(token)
    yield DecodeStep(finish=Finish.CANCELLED if cancel.is_set() else Finish.LENGTH)


class Unchanged:
    """The clean-up of families that have none."""

    def feed(self, text: str) -> str:
        """Return `text`."""
        return text

    def finish(self) -> str:
        """Return nothing: nothing was held back."""
        return ""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What the final counts of an answer say about its prompt."""

    tokens: int
    stepper: Stepper | None = None

    @property
    def reused(self) -> int:
        """How many of the tokens came from the turn before; known only once the prompt has been read."""
        return self.stepper.reused_tokens if self.stepper else 0


def stream_deltas(
    steps: Iterable[DecodeStep],
    prompt: EncodedPrompt,
    decoder: TextDecoder,
    *,
    stops: Sequence[str] = (),
    cleanup: TextFilter | None = None,
) -> Iterator[Delta]:
    """Turn steps into the deltas of one answer; the last carries `finish` and the counts.

    `completion_tokens` counts the tokens of the answer without its end token. A stop text ends the
    answer, and is not part of it. Every delta but the last has text.
    """
    watch, cleanup = StopText(stops), cleanup or Unchanged()
    count, finish = 0, Finish.ERROR
    for step in steps:
        if step.token is None:
            finish = step.finish or Finish.ERROR
            break
        count += 1
        text = cleanup.feed(watch.feed(decoder.feed(step.token)))
        if text:
            yield Delta(text, count)
        if watch.found:
            finish = Finish.STOP
            break
    tail = watch.feed(decoder.finish())
    if watch.found:
        finish = Finish.STOP
    tail = cleanup.feed(tail + watch.finish()) + cleanup.finish()
    yield Delta(tail, count, prompt.tokens, prompt.reused, finish)
