"""Counts a prompt's tokens: by the endpoint if it has a tokenizer call, else estimated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medchat.plugin_kit import Segment, guess_tokens
from medchat_remote.connection import Connection
from medchat_remote.errors import RequestError
from medchat_remote.limits import CONTEXTS
from medchat_remote.messages import as_messages, as_text

#: The tokens that a chat template adds to a message: markers, the role, line ends.
_AROUND_MESSAGE = 6
#: The timeout of a count: the estimate is good enough.
_SECONDS = 5.0


class Counter:
    """Counts the tokens of prompts. `exact`: the endpoint counts (vLLM's and SGLang's `/tokenize`)."""

    def __init__(self, connection: Connection, model: str) -> None:
        """Estimates until `probe` finds the endpoint's tokenizer."""
        self._connection = connection
        self._model = model
        self._last: tuple[Sequence[Segment], int] | None = None
        self.exact = False

    def probe(self) -> int | None:
        """Look for the endpoint's tokenizer without sending the user's text; return the context length that
        it states.
        """
        answer = self._connection.call(self._ask({"prompt": "。"}))
        self.exact = _whole_number(answer.get("count")) is not None
        stated = _whole_number(answer.get("max_model_len"))
        return stated if stated and stated in CONTEXTS else None

    def count(self, segments: Sequence[Segment]) -> int:
        """Return the length in tokens."""
        counted = None
        if self.exact:
            messages = as_messages(segments)
            asked: dict[str, Any] = (
                {"prompt": as_text(segments)} if messages is None else {"messages": messages}
            )
            counted = _whole_number(self._connection.call(self._ask(asked)).get("count"))
        tokens = _guess(segments) if counted is None else counted
        self._last = (segments, tokens)
        return tokens

    def known(self, segments: Sequence[Segment]) -> int:
        """Return the count of the last counted prompt, an estimate for any other, without a request."""
        last = self._last  # read once: another thread may count meanwhile
        if last is not None and last[0] == segments:
            return last[1]
        return _guess(segments)

    async def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        url = self._connection.endpoint.root + "/tokenize"
        try:
            answer = await self._connection.fetch(
                "POST", url, {"model": self._model, **what}, retry=False, seconds=_SECONDS
            )
        except RequestError:
            return {}
        return answer if isinstance(answer, dict) else {}


def _guess(segments: Sequence[Segment]) -> int:
    messages = as_messages(segments)
    if messages is None:
        return guess_tokens([as_text(segments)]) + 1
    return guess_tokens(message["content"] for message in messages) + _AROUND_MESSAGE * (len(messages) + 1)


def _whole_number(value: object) -> int | None:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= CONTEXTS.high
        else None
    )
