"""Reading a request's body within its limits."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import ClientDisconnect, Request

from medchat.plugin_kit import say
from medchat_serve.api_error import ApiError
from medchat_serve.limits import ServerLimits


async def read_body(request: Request, limits: ServerLimits) -> object:
    """Return the JSON value that the body is. Raises ApiError: too long, too slow, no JSON."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limits.body_bytes:
        raise _too_long(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.body_bytes:
                    raise _too_long(limits)
    except TimeoutError:
        raise ApiError(
            408, say("请求体传得太慢", "the body came too slowly"), "timeout", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ApiError(400, say("请求没有传完", "the request was broken off"), "incomplete") from None
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, say("请求体不是 JSON", "the body is no JSON"), "invalid_json") from None
    return value


def _too_long(limits: ServerLimits) -> ApiError:
    most = limits.body_bytes
    return ApiError(
        413,
        say(f"请求体超过 {most} 字节", f"the body is over {most} bytes"),
        "request_too_large",
        headers={"Connection": "close"},
    )
