"""An answer as it grows: from the endpoint's chunks to deltas, with the limits held whatever the server does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medchat.inference.detokenizer import StopText
from medchat.inference.postprocess import StrippedAnswer
from medchat.plugin_kit import Delta, Finish, guess_tokens
from medchat_remote.channels import SplitText
from medchat_remote.chunks import StreamChunk, Usage, WholeCharacters
from medchat_remote.increments import Increments
from medchat_remote.key_filter import KeyFilter
from medchat_remote.limits import answer_characters
from medchat_remote.reasoning import ReasoningSplitter, begins_inside, leaves_channel_names

#: More chunks than this for each token asked for, and the server does not mean to end. (One chunk a token is
#: the rule; gateways that type an answer out letter by letter send some more.)
_CHUNKS_A_TOKEN, _SOME_MORE = 16, 256


class AnswerStream:
    """Feed it chunks; it makes the deltas. `ended` says that no more is wanted: let the connection go."""

    def __init__(
        self,
        prompt_tokens: int,
        max_new_tokens: int,
        stops: Sequence[str],
        *,
        model: str = "",
        key: str = "",
    ) -> None:
        """`prompt_tokens` is our own count, until the server states its own.

        By the name of the `model` it is known how its reasoning may begin; `key` is the secret
        that no answer repeats.
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
        """Return what the chunk adds."""
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
        delta = self._delta(split, before=reasoning)
        if self._stops.found:
            self._finish, self.ended = Finish.STOP, True
        elif (self._chunks >= self._most_chunks and self._finish is None) or not self._room:
            self._finish, self.ended = Finish.LENGTH, True
        return delta

    def end(self, finish: Finish | None = None) -> Delta:
        """Return the last delta, with the server's counts where it gave them."""
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
        """Return the delta of what was split. `before` is reasoning that the server sent apart."""
        reasoning = before + split.reasoning
        if split.restarts:
            # What was taken for the answer becomes reasoning, with the white space kept back at its end.
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
            usage = None  # some proxies state 0 whatever was said
        if finish is not None and usage is not None and not self._stops.found:
            return replace(
                delta,
                completion_tokens=usage.completion_tokens,
                prompt_tokens=usage.prompt_tokens,
                reused_tokens=usage.reused_tokens,
            )
        # One chunk a token is how servers stream; one that sends everything at once is guessed by length.
        tokens = self._chunks if self._chunks != 1 else guess_tokens(self._written)
        return replace(delta, completion_tokens=tokens, estimated=True)
