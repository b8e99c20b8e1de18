"""What one request may take: a server that anybody in reach can ask must not be filled, held or stopped by one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of a server."""

    #: Bytes of a request's body.
    body_bytes: int = 8 << 20
    #: Seconds in which the whole body must have come.
    body_seconds: float = 30.0
    #: Messages of one conversation.
    messages: int = 1000
    #: Requests that wait for the model, beside the one that is answered.
    waiting: int = 16
    #: Requests that are under way at all, of whatever kind.
    requests: int = 256
    #: Seconds of one answer, from its first token on.
    answer_seconds: float = 600.0
    #: Seconds that answers under way have to come to their end when the server is stopped.
    stop_seconds: float = 30.0
