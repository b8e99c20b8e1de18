"""Server-sent events out of bytes that may be cut anywhere, as the specification reads them. Knows no JSON.

Not httpx2's `EventSource`: that one decodes by the charset a server states, keeps a byte-order mark and
drops what is pending when the stream ends, which here is often the end of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from medchat_remote.body_text import BodyDecoder

_BOM = b"\xef\xbb\xbf"
#: Fields that say nothing here; a comment has none.
_PASSED_OVER = ("", "id", "retry")
#: So much of a line that is no field is kept, in characters.
_KEPT = 200


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `name` is "message" where the server names none; `data` are its lines, at least one."""

    name: str
    data: tuple[str, ...]


class EventDecoder:
    """Feed it bytes as they come, `end` it with the stream. Lines end in LF, CR or CRLF; one BOM is dropped.

    Comments (keep-alives), ids and retry times are passed over, and so is an event without data. An event
    that the stream's end leaves without its empty line counts: servers forget that line. How much is kept
    is bounded by whoever reads the bytes.
    """

    def __init__(self, text: BodyDecoder | None = None) -> None:
        """`text` decodes each line."""
        self._text = text or BodyDecoder()
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []
        #: The beginning of the first line that is no field of an event: another format, or a sentence.
        self.strange = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that are complete now. Raises ForeignEncodingError."""
        if self._after_cr and chunk:
            self._after_cr, chunk = False, chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        events = []
        for line in lines:
            self._line += line
            events += self._take_line()
        self._line += rest
        return events

    def end(self) -> list[ServerSentEvent]:
        """Return the event that was pending, if there was one."""
        return [*self._take_line(), *self._dispatch()]

    def _take_line(self) -> list[ServerSentEvent]:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start, line = False, line.removeprefix(_BOM)
        text = self._text.decode(line)
        if not text:
            return self._dispatch()
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field not in _PASSED_OVER and not self.strange:
            self.strange = text.strip()[:_KEPT]
        return []

    def _dispatch(self) -> list[ServerSentEvent]:
        event = ServerSentEvent(self._name or "message", tuple(self._data))
        self._name, self._data = "", []
        return [event] if event.data else []
