"""What one payload of an answer says, whichever of OpenAI's two calls and whosever server it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medchat.api import Finish

#: What ends an answer without its being complete: the provider's filter, an abort of the server's.
_BROKEN_OFF = ("content_filter", "abort", "error")


class MalformedPayloadError(ValueError):
    """The payload is no part of an answer."""


class ServerError(Exception):
    """The server says, in the middle of an answer, that it failed."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Usage:
    """The server's own counts, in tokens. `reused_tokens` are those of the prompt that it had cached."""

    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of an answer. `thinking` marks one that holds reasoning, which is no part of the answer."""

    text: str = ""
    finish: Finish | None = None
    usage: Usage | None = None
    thinking: bool = False


def read_chunk(payload: str) -> StreamChunk:
    """Return what the payload says. Raises MalformedPayloadError or ServerError."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedPayloadError(payload[:80]) from error
    if not isinstance(value, dict):
        raise MalformedPayloadError(payload[:80])
    if value.get("error"):
        raise _server_error(value["error"])
    choices = value.get("choices")
    usage = _usage(value.get("usage"))
    if not isinstance(choices, list) or (choices and not isinstance(choices[0], dict)):
        if usage is None:
            raise MalformedPayloadError(payload[:80])
        return StreamChunk(usage=usage)
    choice: Mapping[str, Any] = choices[0] if choices else {}
    # A streamed chat, a chat that came whole because the server does not stream, a text completion.
    message = choice.get("delta") or choice.get("message") or {}
    if not isinstance(message, dict):
        raise MalformedPayloadError(payload[:80])
    text = _text(message.get("content")) or _text(choice.get("text"))
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return StreamChunk(
        text, _finish(choice.get("finish_reason")), usage, thinking=bool(reasoning) and not text
    )


def _text(content: object) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _finish(reason: object) -> Finish | None:
    if not isinstance(reason, str) or not reason:
        return None
    if reason in _BROKEN_OFF:
        raise ServerError(f"finish_reason: {reason}")
    return Finish.LENGTH if reason in ("length", "max_tokens") else Finish.STOP


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not _is_count(prompt) or not _is_count(completion):
        return None
    return Usage(int(prompt), int(completion), int(cached) if _is_count(cached) else 0)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _server_error(error: object) -> ServerError:
    if isinstance(error, dict):
        code = error.get("code")
        return ServerError(str(error.get("message") or error), code if isinstance(code, int) else 0)
    return ServerError(str(error))


class WholeCharacters:
    """Puts together characters that JSON escapes cut in two, and replaces halves that stay alone."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text that can no longer change."""
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _joined(text)

    def finish(self) -> str:
        """Return what was held back."""
        text, self._half = self._half, ""
        return _joined(text)


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
