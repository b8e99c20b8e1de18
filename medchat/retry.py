"""When to ask a server again, how long to wait before, and when to give up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Answers that say "later": a time-out, too many requests, a server in trouble.
BUSY = (408, 429, 500, 502, 503, 504)
TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 1.0, 8.0
#: A server that asks for more than this (seconds) is not waited for.
LONGEST_ASKED = 300.0


class DownloadCancelled(Exception):
    """The download was cancelled. Never reaches the user."""


class Backoff:
    """Five failures in a row with nothing gained between them are too many; any progress forgives them."""

    def __init__(self, cancel: threading.Event, on_wait: Callable[[], None]) -> None:
        self._cancel = cancel
        self._on_wait = on_wait
        self._failures = 0

    def reset(self) -> None:
        """Begin to count again: something was gained."""
        self._failures = 0

    def wait(self, error: Exception) -> None:
        """Wait as long as is fitting, or raise `error` where asking again is no use."""
        asked = _seconds_to_wait(error)
        self._failures += 1
        if asked is None or self._failures > TRIES:
            raise error
        self._on_wait()
        if self._cancel.wait(asked or min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self._failures - 1))):
            raise DownloadCancelled from error


def _seconds_to_wait(error: Exception) -> float | None:
    """Return the seconds the server asks for, 0 where it leaves that to us, None for what will not change."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in BUSY:
            return None
        stated = error.response.headers.get("Retry-After", "")
        asked = seconds_to_wait(stated)
        # A number too long to be one of seconds is no time to wait for.
        seconds = float("inf") if asked is None and stated.isdigit() else asked or 0.0
        return seconds if seconds <= LONGEST_ASKED else None
    if isinstance(error, httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return None
    return 0.0 if isinstance(error, httpx2.TransportError) else None


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """One more try after each of `delays` (seconds, give or take a quarter, lest many clients come at once).

    A server's own `Retry-After` goes over them; over `longest` seconds it is not waited for.
    """

    delays: tuple[float, ...] = (0.5, 1.0, 2.0)
    longest: float = 30.0

    def pause(self, failures: int, retry_after: float | None) -> float | None:
        """Return how long to wait after that many failures, or None to give up."""
        if not 1 <= failures <= len(self.delays):
            return None
        delay = self.delays[failures - 1] * random.uniform(0.75, 1.25)
        if retry_after is None:
            return delay
        return max(delay, retry_after) if retry_after <= self.longest else None


def seconds_to_wait(retry_after: str | None, now: datetime | None = None) -> float | None:
    """Return what a `Retry-After` header (seconds, or a date) says in seconds, None for none or nonsense."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
