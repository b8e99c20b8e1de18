"""Rate limits: how many requests and tokens are sent to an endpoint per minute, retries included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from medchat_remote.chunks import StreamChunk

#: The capacity of a bucket in seconds of its rate, so that a minute hardly exceeds the rate.
_BURST_SECONDS = 1.0


class Bucket:
    """A token bucket, refilled with `per_minute`; its capacity is the amount of one second."""

    def __init__(self, per_minute: float, now: Callable[[], float]) -> None:
        """Starts full. `now` is a monotonic clock in seconds."""
        self._now = now
        self._size = max(1.0, per_minute / 60 * _BURST_SECONDS)
        # A full bucket comes on top of a minute's refill: together they are the rate.
        self._a_second = (per_minute - self._size + 1) / 60
        self._level, self._seen = self._size, now()

    def take(self, amount: float) -> float:
        """Take `amount` and return 0.0, or return the seconds to wait before the next attempt.

        An amount over the capacity is granted once the bucket is full, and leaves it negative.
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
        """Put back an unused amount."""
        self._level = min(self._size, self._level + amount)


class Pace:
    """Lets requests through in order, as fast as both rates (per minute, 0 for none) allow."""

    def __init__(self, requests: float, tokens: float, now: Callable[[], float]) -> None:
        """`now` is the clock of the event loop in which it is used."""
        self._requests = Bucket(requests, now) if requests else None
        self._tokens = Bucket(tokens, now) if tokens else None
        self._turns = asyncio.Lock()

    async def wait(self, tokens: int) -> None:
        """Wait until a request of up to that many tokens, prompt and answer together, may be sent."""
        async with self._turns:
            for bucket, amount in ((self._requests, 1), (self._tokens, tokens)):
                while bucket and (seconds := bucket.take(amount)):
                    await asyncio.sleep(seconds)

    async def counted(
        self, chunks: AsyncIterator[StreamChunk], tokens: int
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield an answer's chunks; unused `tokens` are given back if the server reports its counts."""
        used = 0  # a rejected request uses none
        try:
            async for chunk in chunks:
                usage = chunk.usage
                used = usage.prompt_tokens + usage.completion_tokens if usage else used or tokens
                yield chunk
        finally:
            if self._tokens:
                self._tokens.give_back(tokens - used)
