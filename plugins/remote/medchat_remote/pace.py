"""How many requests and tokens an endpoint gets in a minute, retries included. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from medchat_remote.chunks import StreamChunk

#: Buckets hold what comes in so many seconds, so that a minute brings hardly more than its rate.
_BURST_SECONDS = 1.0


class Bucket:
    """A token bucket. `per_minute` is what comes in; at most what one second brings is kept for later."""

    def __init__(self, per_minute: float, now: Callable[[], float]) -> None:
        """Begin full. `now` gives seconds of a clock that never goes back."""
        self._now = now
        self._size = max(1.0, per_minute / 60 * _BURST_SECONDS)
        # What is kept may come on top of a minute's income: together they are the rate.
        self._a_second = (per_minute - self._size + 1) / 60
        self._level, self._seen = self._size, now()

    def take(self, amount: float) -> float:
        """Take `amount`, or return the seconds to wait before asking again (0.0: it is taken).

        More than the bucket holds is given once it is full, and is missing afterwards.
        """
        now = self._now()
        self._level = min(self._size, self._level + (now - self._seen) * self._a_second)
        self._seen = now
        lacking = min(amount, self._size) - self._level
        if lacking > 1e-9:
            return lacking / self._a_second
        self._level -= amount
        return 0.0

    def give_back(self, amount: float) -> None:
        """Put back what was taken and not used."""
        self._level = min(self._size, self._level + amount)


class Pace:
    """Lets requests through in the order they come, as fast as both rates (a minute's, 0 for none) allow."""

    def __init__(self, requests: float, tokens: float, now: Callable[[], float]) -> None:
        """`now` is the clock of the loop in which it is used."""
        self._requests = Bucket(requests, now) if requests else None
        self._tokens = Bucket(tokens, now) if tokens else None
        self._turns = asyncio.Lock()

    async def wait(self, tokens: int) -> None:
        """Wait until a request may go that takes up to so many tokens, prompt and answer together."""
        async with self._turns:
            for bucket, amount in ((self._requests, 1), (self._tokens, tokens)):
                while bucket and (seconds := bucket.take(amount)):
                    await asyncio.sleep(seconds)

    async def counted(
        self, chunks: AsyncIterator[StreamChunk], tokens: int
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield an answer's chunks; what it leaves of `tokens` goes to others, where the server states its counts."""
        used = 0  # a refusal takes none
        try:
            async for chunk in chunks:
                usage = chunk.usage
                used = usage.prompt_tokens + usage.completion_tokens if usage else used or tokens
                yield chunk
        finally:
            if self._tokens:
                self._tokens.give_back(tokens - used)
