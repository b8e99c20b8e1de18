"""What a user can tell us about an endpoint, in variables: its context, how long to wait for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from medchat.api import Range
from medchat.errors import UsageError
from medchat.language import say

CONTEXT, TIMEOUT = "MEDCHAT_REMOTE_CONTEXT", "MEDCHAT_REMOTE_TIMEOUT"
#: Assumed where neither the endpoint nor the user says: the least of today's servers' defaults.
ASSUMED_CONTEXT = 4096
#: A server may first have to load the model, or to answer others.
PATIENT_SECONDS = 300.0
_RANGES: Mapping[str, Range] = {CONTEXT: Range(64, 100_000_000), TIMEOUT: Range(1, 86_400)}


@dataclass(frozen=True, slots=True)
class Limits:
    """`context_length` in tokens, None where the user does not say; `timeout` in seconds between bytes."""

    context_length: int | None = None
    timeout: float = PATIENT_SECONDS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Limits:
        """Return what the variables say. Raises UsageError naming the variable and the valid range."""
        context, timeout = _number(CONTEXT, environment), _number(TIMEOUT, environment)
        return cls(None if context is None else int(context), PATIENT_SECONDS if timeout is None else timeout)


def _number(variable: str, environment: Mapping[str, str]) -> float | None:
    text = environment.get(variable, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number not in _RANGES[variable]:
        raise UsageError(
            say(f"{variable} 的值 {text!r} 无效", f"{variable} is {text!r}, which is not valid"),
            say(f"有效范围是 {_RANGES[variable]}", f"the valid range is {_RANGES[variable]}"),
        )
    return number
