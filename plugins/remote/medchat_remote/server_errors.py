"""Errors stated by a server in any of the common formats: OpenAI's, FastAPI's, FastChat's, DashScope's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from medchat.plugin_kit import say

_TITLE = re.compile(r"(?i)<title>([^<]{1,200})</title>")

#: Error messages about a system message that a model's chat template rejects. Roles alternate otherwise.
_SYSTEM_REFUSED = re.compile(
    r"system[\W_]*(?:role|message|prompt|instruction)|\brole\b.{0,80}\bsystem\b|roles must alternate",
    re.IGNORECASE | re.DOTALL,
)
_SYSTEM_TAKEN = "optional system message"
#: Error messages about a setting or a field of the request, or about the model's name.
_OF_SETTINGS = re.compile(
    r"temperature|top[_-][pk]|seed|max[_-]\w*tokens|penalty|stream|\bstop\b|logprobs"
    r"|argument|parameter|field|setting|option|value|extra|un(?:known|recogni[sz]ed|supported)|not supported"
    r"|such model|model.{0,60}not (?:found|exist)|参数|字段|设置|取值|不支持|模型名",
    re.IGNORECASE,
)


class FailureKind(Enum):
    """The kinds of failures that a server states."""

    FAILED = "failed"
    FILTERED = "filtered"
    TOOL_WANTED = "tool wanted"


class ServerError(Exception):
    """The server states a failure in place of an answer or inside one. `code` is an HTTP status or 0."""

    def __init__(self, message: str, code: int = 0, kind: FailureKind = FailureKind.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.kind = kind


#: The field names of a failure's code and message, and codes that mean success.
_CODES, _MESSAGES = ("code", "error_code", "status"), ("message", "msg", "error_msg")
_SUCCESS = (None, "", 0, 200, "0", "200", "success")


def failure_in(value: Mapping[str, Any]) -> ServerError | None:
    """Return the failure that an object states, None if there is none."""
    error = value.get("error") or value.get("errors")
    if not error and not value.get("choices"):
        stated = value.get("object") == "error" or _states_failure(value)
        error = value if stated else value.get("detail")
    if not error:
        return None
    code = _status(error.get("code")) or _status(error.get("status")) if isinstance(error, dict) else 0
    return ServerError(_sentence(error), code)


def _states_failure(value: Mapping[str, Any]) -> bool:
    coded = any(value.get(key) not in _SUCCESS for key in _CODES)
    return coded and any(isinstance(value.get(key), str) and value[key] for key in _MESSAGES)


def message_in(body: str) -> str:
    """Return the message in an error's body: a web page's title; from JSON without the rejected input."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        title = _TITLE.search(body)
        return title[1].strip() if title else "" if "<" in body else body.strip()
    if isinstance(value, dict):
        failure = failure_in(value)
        return failure.message if failure else _sentence(value)
    return _sentence(value)


def refuses_system(message: str) -> bool:
    """Whether a server's message says that it accepts no system message."""
    return _SYSTEM_REFUSED.search(message) is not None and _SYSTEM_TAKEN not in message.lower()


def remedy_for_refusal(message: str) -> str:
    """Return what to do about a request that was refused with that message."""
    if not message or _OF_SETTINGS.search(message):
        return say(
            "去掉它不支持的设置（--temperature、--top-k、--seed 等），或换一个模型名",
            "leave out settings it does not know (--temperature, --top-k, --seed …), or name another model",
        )
    return say(
        "按服务端所说的改问题；不清楚时查看服务端日志",
        "change the question as the server says; if that is not clear, look at the server's log",
    )


def _sentence(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_sentence, value)))
    if not isinstance(value, dict):
        return ""
    message = next((value[key] for key in (*_MESSAGES, "type") if value.get(key)), None)
    if not isinstance(message, str):
        return json.dumps(value, ensure_ascii=False)
    # FastAPI names the field in `loc`, OpenAI in `param`; the field's value is in `input`.
    place = value.get("param") or value.get("loc")
    field = ".".join(map(str, place)) if isinstance(place, list) else place
    return f"{field}: {message}" if isinstance(field, str) and field not in message else message


def _status(code: object) -> int:
    """Return `code` if it is an HTTP status that means failure (some servers write it as text), else 0."""
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else 0
