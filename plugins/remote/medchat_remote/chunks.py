"""Parses one payload of an answer, for both of OpenAI's calls and the variants of all servers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from medchat.plugin_kit import Finish
from medchat_remote.server_errors import FailureKind, ServerError, failure_in

#: Finish reasons of an incomplete answer: the provider's filter, an abort by the server.
_BROKEN_OFF = ("content_filter", "sensitive", "abort", "error")
_FILTERED = ("content_filter", "sensitive")
_TOOLS = ("tool_calls", "function_call")
#: Types of content parts with reasoning; the text of all others is the answer's.
_REASONING_PARTS = ("thinking", "reasoning")
#: Fields of a message with reasoning outside its content.
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
#: The index of the first answer, as servers write it.
_FIRST = (0, "0", None)
#: The largest length of an error in plain text.
_LONGEST_SENTENCE = 1000


class MalformedPayloadError(ValueError):
    """The payload is not part of an answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The server's own counts, in tokens. `reused_tokens` are the cached ones of the prompt."""

    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A part of an answer. `reasoning` is not part of its text; `wants_tool`: it ends in a tool call.

    `rejected` names the settings that the endpoint rejected: it answers without them. `restarts`: the text before was
    reasoning (`medchat serve` says so).
    """

    text: str = ""
    finish: Finish | None = None
    usage: Usage | None = None
    reasoning: str = ""
    wants_tool: bool = False
    rejected: tuple[str, ...] = ()
    restarts: bool = False


def read_chunk(payload: str) -> StreamChunk | None:
    """Return the payload's chunk, None for another kind of object (a ping, filter results).

    Raises MalformedPayloadError, and ServerError for an error stated by the server.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        if len(payload) > _LONGEST_SENTENCE or payload.lstrip()[:1] in ("{", "[", '"', "<", ""):
            raise MalformedPayloadError(payload[:80]) from error
        raise ServerError(payload) from error  # a plain sentence in place of an answer
    if not isinstance(value, dict):
        raise MalformedPayloadError(payload[:80])
    if failure := failure_in(value):
        raise failure
    choices, usage = value.get("choices"), _usage(value.get("usage"))
    if choices is None:
        return StreamChunk(usage=usage) if usage or "choices" in value else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise MalformedPayloadError(payload[:80])
    # Of several answers to one question the first counts; servers that send only one may omit its index.
    choice: dict[str, Any] = next((choice for choice in choices if choice.get("index", 0) in _FIRST), {})
    # A streamed chat, an unstreamed chat, a text completion.
    message = choice.get("delta") or choice.get("message") or {}
    if not isinstance(message, dict):
        raise MalformedPayloadError(payload[:80])
    if failure := failure_in(choice):
        raise failure
    text, reasoning = _texts(message.get("content"))
    text = text or _text(choice.get("text")) or _text(message.get("refusal"))
    reasoning = reasoning or next(filter(None, (_text(message.get(key)) for key in _REASONING_KEYS)), "")
    reasoning = reasoning or _texts(message.get("reasoning_details"))[0]
    reason, ours = choice.get("finish_reason"), value.get("medchat")
    restarts = isinstance(ours, dict) and ours.get("restarted") is True
    tool = reason in _TOOLS
    return StreamChunk(text, _finish(reason), usage, reasoning, wants_tool=tool, restarts=restarts)


def _texts(content: object) -> tuple[str, str]:
    """Return the answer's text and the reasoning in a message's content."""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return _text(content), ""
    answer, reasoning = "", ""
    for part in content:
        if not isinstance(part, dict):
            answer += _text(part)
            continue
        if part.get("type") in _REASONING_PARTS:
            inner = part.get("thinking") or part.get("reasoning") or part.get("text")
            reasoning += _texts(inner)[0]
        else:
            answer += _text(part.get("text"))
    return answer, reasoning


def _text(content: object) -> str:
    return content if isinstance(content, str) else ""


def _finish(reason: object) -> Finish | None:
    if not isinstance(reason, str) or not reason:
        return None
    if reason in _BROKEN_OFF:
        filtered = reason in _FILTERED
        raise ServerError(
            f"finish_reason: {reason}", kind=FailureKind.FILTERED if filtered else FailureKind.FAILED
        )
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


class WholeCharacters:
    """Joins surrogate pairs split over chunks, and replaces unpaired surrogates."""

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
