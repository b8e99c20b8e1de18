"""Turns an endpoint's chunks into deltas of the answer, and enforces the limits whatever the server does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medchat.inference.detokenizer import StopText
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.reasoning import ReasoningSplitter, begins_inside, leaves_channel_names
from medchat.inference.reasoning_channels import SplitText
from medchat.plugin_kit import Delta, Finish, guess_tokens
from medchat_remote.chunks import StreamChunk, Usage, WholeCharacters
from medchat_remote.increments import Increments
from medchat_remote.key_filter import KeyFilter
from medchat_remote.limits import answer_characters

#: The largest number of chunks per requested token. (One per token is normal; gateways that send an answer
#: letter by letter need a few more.)
_CHUNKS_A_TOKEN, _SOME_MORE = 16, 256


class AnswerStream:
    """Call `take` with chunks; it returns deltas. `ended`: no more is needed and the connection can be closed."""

    def __init__(
        self,
        prompt_tokens: int,
        max_new_tokens: int,
        stops: Sequence[str],
        *,
        model: str = "",
        key: str = "",
    ) -> None:
        """`prompt_tokens` is our own count, used until the server reports its own.

        The name of the `model` determines how its reasoning may begin; `key` is removed from answers.
        """
        self._prompt_tokens = prompt_tokens
        self._room = answer_characters(max_new_tokens)
        self._most_chunks = _CHUNKS_A_TOKEN * max_new_tokens + _SOME_MORE
        self._stop_texts = stops
        self._stops = StopText(stops)
        self._stripped = StrippedAnswer()
        self._characters, self._reasoning_characters = WholeCharacters(), WholeCharacters()
        self._key_filter, self._reasoning_key_filter = KeyFilter(key), KeyFilter(key)
        self._increments = Increments()
        self._splitter = ReasoningSplitter(
            wait=begins_inside(model), bare_channels=leaves_channel_names(model)
        )
        self._written: list[str] = []
        self._chunks = 0
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._rejected: tuple[str, ...] = ()
        self.ended = False

    def take(self, chunk: StreamChunk) -> Delta:
        """Return the delta of a chunk."""
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish or self._finish
        self._rejected = chunk.rejected or self._rejected
        if chunk.text or chunk.reasoning:
            self._chunks += 1
        if chunk.reasoning:
            self._splitter.no_tags()
        thought = self._reasoning_characters.feed(self._within_room(chunk.reasoning))
        reasoning = self._reasoning_key_filter.feed(thought)
        text = self._within_room(self._increments.feed(self._characters.feed(chunk.text)))
        split = self._splitter.feed(self._key_filter.feed(text))
        if chunk.restarts:
            split = replace(split, restarts=True)
        delta = self._delta(split, before=reasoning)
        if self._stops.found:
            self._finish, self.ended = Finish.STOP, True
        elif (self._chunks >= self._most_chunks and self._finish is None) or not self._room:
            self._finish, self.ended = Finish.LENGTH, True
        return delta

    def end(self, finish: Finish | None = None) -> Delta:
        """Return the last delta, with the server's counts if it sent them."""
        text = self._increments.feed(self._characters.finish()) + self._increments.finish()
        finish = finish or self._finish or Finish.STOP
        last = self._splitter.feed(self._key_filter.feed(text) + self._key_filter.finish())
        rest = self._splitter.finish(complete=finish is Finish.STOP)
        whole = SplitText(last.answer + rest.answer, last.reasoning + rest.reasoning, last.restarts)
        before = self._reasoning_key_filter.feed(self._reasoning_characters.finish())
        before += self._reasoning_key_filter.finish()
        return self._delta(whole, before=before, finish=finish)

    def _within_room(self, text: str) -> str:
        text = text[: self._room]
        self._room -= len(text)
        return text

    def _delta(self, split: SplitText, *, before: str, finish: Finish | None = None) -> Delta:
        """Return the delta of the split text. `before` is reasoning that the server sent separately."""
        reasoning = before + split.reasoning
        if split.restarts:
            # The answer so far becomes reasoning, with the white space held back at its end.
            reasoning = self._stripped.take_back() + reasoning
            self._stops = StopText(self._stop_texts)
        text = self._stripped.feed(self._stops.feed(split.answer))
        if finish is not None:
            text += self._stripped.feed(self._stops.finish()) + self._stripped.finish()
        self._written += [reasoning, text]
        delta = Delta(
            text,
            prompt_tokens=self._prompt_tokens,
            finish=finish,
            reasoning=reasoning,
            restarts=split.restarts,
            rejected=self._rejected,
        )
        usage = self._usage
        if usage is not None and not usage.completion_tokens and any(self._written):
            usage = None  # some proxies always report 0
        if finish is not None and usage is not None and not self._stops.found:
            return replace(
                delta,
                completion_tokens=usage.completion_tokens,
                prompt_tokens=usage.prompt_tokens,
                reused_tokens=usage.reused_tokens,
            )
        # Servers stream one chunk per token; for one that sends everything at once, estimate by length.
        tokens = self._chunks if self._chunks != 1 else guess_tokens(self._written)
        return replace(delta, completion_tokens=tokens, estimated=True)
