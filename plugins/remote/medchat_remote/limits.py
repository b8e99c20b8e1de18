"""Limits of a request: context length, time, size of the response; and their settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from medchat.api import Range
from medchat.plugin_kit import Option, UsageError, say

CONTEXT, TIMEOUT, DEADLINE = "MEDCHAT_REMOTE_CONTEXT", "MEDCHAT_REMOTE_TIMEOUT", "MEDCHAT_REMOTE_DEADLINE"
#: Assumed if neither the endpoint nor the user states it: the smallest default of current servers.
ASSUMED_CONTEXT = 4096
#: A server may first have to load the model, or to answer other requests.
SILENCE_SECONDS = 300.0
#: Enough for a long answer of a reasoning model on a CPU; ends a server that sends slowly for ever.
REQUEST_SECONDS = 1800.0
#: The valid range of a context length.
CONTEXTS = Range(64, 100_000_000)
_RANGES: Mapping[str, Range] = {
    CONTEXT: CONTEXTS,
    TIMEOUT: Range(1, 86_400),
    DEADLINE: Range(1, 86_400),
}

#: The rates that can be set with `--option`.
RATES: Mapping[str, Option] = {
    "rpm": Option(
        kind=int,
        low=1,
        high=1_000_000,
        summary={"zh": "每分钟最多请求数（含重试）", "en": "most requests a minute, retries included"},
    ),
    "tpm": Option(
        kind=int,
        low=1,
        high=1_000_000_000,
        summary={
            "zh": "每分钟最多词元数，问题与回答合计",
            "en": "most tokens a minute, prompts and answers together",
        },
    ),
}

#: The limit in bytes of a list of models, a count, scores. (OpenRouter's list of 400 models has 0.6 MB.)
DOCUMENT_BYTES = 8 << 20
#: The limit in bytes of an error's body; the rest is cut.
ERROR_BYTES = 64 << 10
#: An event of one token has 150 to 400 bytes; some servers repeat the complete answer in each.
_BYTES_A_TOKEN, _MORE_BYTES, _MOST_BYTES = 4 << 10, 1 << 20, 32 << 20
#: Runs of spaces are the longest tokens; hardly one in a hundred has more than 16 characters.
_CHARACTERS_A_TOKEN, _MORE_CHARACTERS = 64, 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """`context_length` in tokens, None if the user does not say; the rest in seconds.

    `timeout` is how long the endpoint may be silent, `deadline` how long a question may take altogether, its
    retries included. The rates are maxima per minute, 0 for no limit.
    """

    context_length: int | None = None
    timeout: float = SILENCE_SECONDS
    deadline: float = REQUEST_SECONDS
    requests_per_minute: float = 0
    tokens_per_minute: float = 0

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], options: Mapping[str, Any] = MappingProxyType({})
    ) -> Limits:
        """Return the limits set by the variables and the backbone's own options.

        Raises UsageError naming the variable and the valid range.
        """
        context = _number(CONTEXT, environment)
        return cls(
            None if context is None else int(context),
            _number(TIMEOUT, environment) or SILENCE_SECONDS,
            _number(DEADLINE, environment) or REQUEST_SECONDS,
            options.get("rpm", 0),
            options.get("tpm", 0),
        )


def answer_bytes(max_new_tokens: int) -> int:
    """Return the largest number of bytes of a response, framing included."""
    return min(_MOST_BYTES, _MORE_BYTES + _BYTES_A_TOKEN * max_new_tokens)


def answer_characters(max_new_tokens: int) -> int:
    """Return the largest number of characters of an answer and its reasoning together."""
    return _MORE_CHARACTERS + _CHARACTERS_A_TOKEN * max_new_tokens


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
            say(f"{variable} 的值“{text}”无效", f"{variable} is {text!r}, which is not valid"),
            say(f"有效范围是 {_RANGES[variable]}", f"the valid range is {_RANGES[variable]}"),
        )
    return number
