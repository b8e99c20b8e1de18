"""The payloads of an answer's body in any framing: server-sent events, one JSON value, JSON lines.

The body decides, not its content type, which is wrong or missing at some gateways.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from medchat_remote.body_text import BodyDecoder
from medchat_remote.chunks import MalformedPayloadError, StreamChunk, read_chunk
from medchat_remote.events import EventDecoder, ServerSentEvent
from medchat_remote.server_errors import ServerError, failure_in

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload, and the name of the event that it came in."""

    text: str
    event: str = "message"

    @property
    def is_done(self) -> bool:
        """Whether it marks the end of the stream."""
        return self.text.strip() == "[DONE]"

    def read(self) -> StreamChunk | None:
        """Return its chunk; None if it is not part of the answer. Raises what `read_chunk` raises.

        An event of another name (`ping`) counts only if it still contains a chunk.
        """
        if self.event == "error":
            raise _stated_failure(self.text)
        if self.event == "message":
            return read_chunk(self.text)
        try:
            return read_chunk(self.text)
        except MalformedPayloadError:
            return None
        except ServerError:
            if self.text.lstrip().startswith("{"):
                raise
            return None


async def read_payloads(body: AsyncIterator[bytes], content_type: str = "") -> AsyncGenerator[Payload, None]:
    """Yield the payloads of `body` as they come. `content_type` may state its charset.

    Raises MalformedPayloadError for a web page and for a text without any event, ForeignEncodingError for a body in
    another encoding.
    """
    text = BodyDecoder(content_type)
    head = bytearray()
    async for chunk in body:
        head += chunk
        if _first_character(head):
            break
    first = _first_character(head)
    if first == b"<":
        raise MalformedPayloadError("text/html")
    if first in (b"{", b"["):
        async for chunk in body:
            head += chunk
        for value in _json_values(text.decode(bytes(head).removeprefix(_BOM))):
            yield Payload(value)
        return
    decoder, came = EventDecoder(text), False
    async with aclosing(_events(decoder, bytes(head), body)) as events:
        async for event in events:
            for payload in _payloads_of(event):
                came = True
                yield payload
    if not came and decoder.strange:
        raise MalformedPayloadError(decoder.strange)


async def _events(
    decoder: EventDecoder, head: bytes, body: AsyncIterator[bytes]
) -> AsyncGenerator[ServerSentEvent, None]:
    for event in decoder.feed(head):
        yield event
    async for chunk in body:
        for event in decoder.feed(chunk):
            yield event
    for event in decoder.end():
        yield event


def _first_character(body: bytearray) -> bytes:
    """Return the first byte that is neither white space nor part of a byte-order mark, b"" if there is none yet."""
    start = bytes(body[:64]) if body[:64].strip() else bytes(body)
    return b"" if _BOM.startswith(start) else start.removeprefix(_BOM).lstrip()[:1]


def _payloads_of(event: ServerSentEvent) -> list[Payload]:
    """Return an event's payloads: one, unless the server omitted the empty lines between its events."""
    whole = "\n".join(event.data)
    texts = [whole] if len(event.data) == 1 or _is_json(whole) else list(event.data)
    return [Payload(text, event.name) for text in texts if text.strip()]


def _json_values(body: str) -> list[str]:
    """Return the JSON value of `body`, or those of its lines if each is one."""
    lines = [line for line in body.split("\n") if line.strip()]
    return lines if len(lines) > 1 and not _is_json(body) and _is_json(lines[0]) else [body]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _stated_failure(text: str) -> ServerError:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ServerError(text)
    if not isinstance(value, dict):
        return ServerError(text)
    return failure_in(value) or ServerError(str(value.get("message") or value.get("data") or text))
