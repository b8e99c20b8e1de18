"""When to ask a server again, and when to give up."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Answers that say "later": a time-out, too many requests, a server in trouble.
BUSY = (408, 429, 500, 502, 503, 504)
TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 1.0, 8.0
#: A server that asks for more than this (seconds) is not waited for.
LONGEST_ASKED = 300.0


class DownloadCancelled(Exception):
    """The download was told to stop. Never reaches the user."""


class Backoff:
    """Five failures in a row with nothing gained between them are too many; any progress forgives them."""

    def __init__(self, cancel: threading.Event, on_wait: Callable[[], None]) -> None:
        self._cancel = cancel
        self._on_wait = on_wait
        self._failures = 0

    def forgive(self) -> None:
        """Begin to count anew: something was gained."""
        self._failures = 0

    def bear(self, error: Exception) -> None:
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
        seconds = float(stated) if stated.isdigit() else 0.0
        return seconds if seconds <= LONGEST_ASKED else None
    if isinstance(error, httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return None
    return 0.0 if isinstance(error, httpx2.TransportError) else None
