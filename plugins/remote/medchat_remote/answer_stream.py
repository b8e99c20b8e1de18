"""An answer as it grows: from the endpoint's chunks to deltas, with the limits held whatever the server does."""

from __future__ import annotations

from collections.abc import Sequence

from medchat.api import Delta, Finish
from medchat.inference.detokenizer import StopText
from medchat_remote.chunks import StreamChunk, Usage, WholeCharacters
from medchat_remote.tokens import guess

#: More chunks than this for each token asked for, and the server does not mean to end. (One chunk a token is
#: the rule; gateways that type an answer out letter by letter send some more.)
_CHUNKS_A_TOKEN, _SOME_MORE = 16, 256


class AnswerStream:
    """Feed it chunks; it makes the deltas. `ended` says that no more is wanted: let the connection go."""

    def __init__(self, prompt_tokens: int, max_new_tokens: int, stops: Sequence[str]) -> None:
        """`prompt_tokens` is our own count, until the server states its own."""
        self._prompt_tokens = prompt_tokens
        self._most_chunks = _CHUNKS_A_TOKEN * max_new_tokens + _SOME_MORE
        self._stops = StopText(stops)
        self._characters = WholeCharacters()
        self._text: list[str] = []
        self._chunks = 0
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self.ended = False

    def take(self, chunk: StreamChunk) -> Delta:
        """Return what the chunk adds."""
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish or self._finish
        if chunk.text or chunk.reasoning:
            self._chunks += 1
        text = self._stops.feed(self._characters.feed(chunk.text))
        if self._stops.found:
            self._finish, self.ended = Finish.STOP, True
        elif self._chunks >= self._most_chunks and self._finish is None:
            self._finish, self.ended = Finish.LENGTH, True
        return self._delta(text)

    def end(self, finish: Finish | None = None) -> Delta:
        """Return the last delta, with the server's counts where it gave them."""
        text = self._stops.feed(self._characters.finish()) + self._stops.finish()
        return self._delta(text, finish or self._finish or Finish.STOP)

    def _delta(self, text: str, finish: Finish | None = None) -> Delta:
        if text:
            self._text.append(text)
        if finish is not None and self._usage is not None and not self._stops.found:
            usage = self._usage
            return Delta(text, usage.completion_tokens, usage.prompt_tokens, usage.reused_tokens, finish)
        # One chunk a token is how servers stream; one that sends everything at once is guessed by length.
        tokens = self._chunks if self._chunks != 1 else guess(self._text)
        return Delta(text, tokens, self._prompt_tokens, finish=finish, estimated=True)
