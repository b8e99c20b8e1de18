"""Parses server-sent events from bytes that may be cut anywhere, as specified.

httpx2's `EventSource` is not used: it decodes with the charset that a server states, keeps a byte-order mark
and drops a pending event at the end of the stream, which is often the end of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from medchat_remote.body_text import BodyDecoder

_BOM = b"\xef\xbb\xbf"
#: Fields that are ignored; a comment has an empty field name.
_PASSED_OVER = ("", "id", "retry")
#: Characters kept of a line that is not a field.
_KEPT = 200


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `name` is "message" by default; `data` are its lines, at least one."""

    name: str
    data: tuple[str, ...]


class EventDecoder:
    """A streaming decoder: call `feed` with bytes, then `end`. Lines end in LF, CR or CRLF; one BOM is dropped.

    Comments (keep-alives), ids and retry times are ignored, and so is an event without data. A last event
    without its empty line counts: servers forget that line. The reader of the bytes limits their number.
    """

    def __init__(self, text: BodyDecoder | None = None) -> None:
        """`text` decodes each line."""
        self._text = text or BodyDecoder()
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []
        #: The beginning of the first line that is not a field of an event: another format, or a sentence.
        self.strange = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Add bytes and return the complete events. Raises ForeignEncodingError."""
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
        """Return the pending event, if there is one."""
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
