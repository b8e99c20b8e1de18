"""How often to try again, and how long to wait before."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Patience:
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
    except (TypeError, ValueError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
