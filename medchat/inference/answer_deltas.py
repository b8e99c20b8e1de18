"""From tokens, whoever computed them, to the deltas of an answer: room, counts, stop texts. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from medchat.api import Completion, Delta, Finish, GenerationConfig
from medchat.errors import UsageError
from medchat.inference.detokenizer import StopText
from medchat.inference.reasoning import ReasoningSplitter
from medchat.inference.reasoning_channels import SplitText
from medchat.language import say


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


class PromptReader(Protocol):
    """Whoever read a prompt."""

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were still in the cache and not computed again."""
        ...


_NOTHING = SplitText()


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
    reader: PromptReader | None = None

    @property
    def reused(self) -> int:
        """How many of the tokens came from the turn before; known only once the prompt has been read."""
        return self.reader.reused_tokens if self.reader else 0


class AnswerText:
    """What of the decoded text is answer and what reasoning, up to a stop text; cleaned up. One answer each."""

    def __init__(
        self, stops: Sequence[str], cleanup: TextFilter, reasoning: ReasoningSplitter | None
    ) -> None:
        """Without `reasoning`, all text is answer."""
        self._stops, self._cleanup, self._reasoning = stops, cleanup, reasoning
        self._watch = StopText(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found in the answer."""
        return self._watch.found

    def feed(self, text: str) -> SplitText:
        """Add text and return what has become certain."""
        return self._cleaned(self._reasoning.feed(text) if self._reasoning else SplitText(text))

    def finish(self, text: str, *, complete: bool) -> SplitText:
        """Add the last text and return the rest; `complete`: the model ended its answer itself."""
        first = self.feed(text)
        rest = self._cleaned(self._reasoning.finish(complete=complete) if self._reasoning else SplitText())
        end = self._cleanup.feed(self._watch.finish()) + self._cleanup.finish()
        return SplitText(first.answer + rest.answer + end, first.reasoning + rest.reasoning, first.restarts)

    def _cleaned(self, split: SplitText) -> SplitText:
        reasoning = split.reasoning
        if split.restarts:  # the answer so far is reasoning, with what was held back of it
            reasoning = self._cleanup.feed(self._watch.finish()) + self._cleanup.finish() + reasoning
            self._watch = StopText(self._stops)
        return SplitText(self._cleanup.feed(self._watch.feed(split.answer)), reasoning, split.restarts)


def stream_deltas(
    steps: Iterable[DecodeStep],
    prompt: EncodedPrompt,
    decoder: TextDecoder,
    *,
    stops: Sequence[str] = (),
    cleanup: TextFilter | None = None,
    reasoning: ReasoningSplitter | None = None,
) -> Iterator[Delta]:
    """Turn steps into the deltas of one answer; the last carries `finish` and the counts.

    `completion_tokens` counts the tokens of the answer, reasoning included, without its end token. A stop text
    ends the answer, and is not part of it. Every delta but the last has text or reasoning, or restarts.
    `reasoning` finds the model's reasoning (`<think>…</think>`); without it, that is text.
    """
    answer = AnswerText(stops, cleanup or Unchanged(), reasoning)
    count, finish = 0, Finish.ERROR
    for step in steps:
        if step.token is None:
            finish = step.finish or Finish.ERROR
            break
        count += 1
        split = answer.feed(decoder.feed(step.token))
        if split != _NOTHING:
            yield Delta(split.answer, count, reasoning=split.reasoning, restarts=split.restarts)
        if answer.stopped:
            finish = Finish.STOP
            break
    split = answer.finish(decoder.finish(), complete=finish is Finish.STOP)
    if answer.stopped:
        finish = Finish.STOP
    yield Delta(
        split.answer,
        count,
        prompt.tokens,
        prompt.reused,
        finish,
        reasoning=split.reasoning,
        restarts=split.restarts,
    )


def go_on_deltas(
    steps: Iterable[DecodeStep],
    prompt: EncodedPrompt,
    decoder: TextDecoder,
    *,
    answer: str,
    answer_ids: Sequence[int],
    stops: Sequence[str],
    cleanup: TextFilter,
) -> Iterator[Delta]:
    """Turn steps into the deltas of what comes behind `answer`, whose ids are `answer_ids`.

    `decoder` and `cleanup` have seen nothing yet. Else as `stream_deltas`.
    """
    given = "".join(cleanup.feed(decoder.feed(token)) for token in answer_ids)
    held = max(0, len(answer) - len(given))  # what the two keep back is in the answer already
    for delta in stream_deltas(steps, prompt, decoder, stops=stops, cleanup=cleanup):
        yield replace(delta, text=delta.text[held:])
        held -= min(held, len(delta.text))


def completion_of(deltas: Iterable[Delta]) -> Completion:
    """Return the whole answer that the deltas give."""
    text, reasoning, last = "", "", Delta()
    for last in deltas:
        if last.restarts:
            text, reasoning = "", reasoning + text
        text, reasoning = text + last.text, reasoning + last.reasoning
    return Completion(
        text,
        last.finish or Finish.STOP,
        last.prompt_tokens,
        last.completion_tokens,
        last.estimated,
        reasoning,
        last.rejected,
    )
