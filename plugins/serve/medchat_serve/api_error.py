"""Refusals and failures in OpenAI's form, so that every client shows them as its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medchat.plugin_kit import MedchatError, Notice, UsageError, say

#: The `type` that goes with a status.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
#: The parts of a remedy, and what of MedChat's own command line and chat may stand in one: no client has that.
_PARTS = re.compile(r"；|; |，或|, or ")
_FLAG_OR_COMMAND = re.compile(r"--\w|(?<![\w/:.])/\w")


@dataclass
class ApiError(Exception):
    """A request that gets no answer.

    `code` and `param` are as OpenAI has them, `notices` what must be said all the same.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[Notice] = ()

    def body(self) -> dict[str, Any]:
        """Return the JSON of the refusal. Urgent notices are in its message too: a client shows that."""
        urgent = [notice.text for notice in self.notices if notice.urgent]
        error = {
            "message": "\n\n".join([*urgent, self.message]),
            "type": _TYPES.get(self.status, "server_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def as_api_error(error: BaseException) -> ApiError:
    """Return the error for a client: nothing of internal failures that are not meant for users."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UsageError):
        return ApiError(400, _sentence(error), "invalid_value")
    if isinstance(error, MedchatError):
        return ApiError(500, _sentence(error), "model_failed")
    return ApiError(
        500, say("服务出错，详情见服务端日志", "the server failed; its log says more"), "internal_error"
    )


def _sentence(error: MedchatError) -> str:
    """Return what went wrong, and of its remedy what a client can do."""
    joined = say("；", "; ")
    steps = [part for part in _PARTS.split(error.remedy) if not _FLAG_OR_COMMAND.search(part)]
    return joined.join(part for part in (error.what, *steps) if part)
