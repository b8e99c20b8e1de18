"""Server-sent events: the payloads out of bytes that may be cut anywhere. Knows nothing of JSON."""

from __future__ import annotations

#: One event holds a token or a few; no honest one comes near this.
LONGEST_EVENT = 1 << 20


class EventTooLongError(ValueError):
    """The server sends without end and without a line."""


class EventReader:
    """Feed it bytes as they come; get the `data` of each complete event.

    Comments (keep-alives) and other fields are passed over. What an end of the stream leaves unfinished
    is no event.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Return the payloads that are complete now. Raises EventTooLongError."""
        payloads = []
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            payloads += self._take(bytes(self._line) + line)
            self._line.clear()
        self._line += rest
        if len(self._line) + self._size > LONGEST_EVENT:
            raise EventTooLongError
        return payloads

    def _take(self, line: bytes) -> list[str]:
        text = line.removesuffix(b"\r").decode("utf-8", "replace")
        if not text:
            payload, self._data, self._size = "\n".join(self._data), [], 0
            return [payload] if payload else []
        field, _, value = text.partition(":")
        if field == "data":
            self._data.append(value.removeprefix(" "))
            self._size += len(line)
            if self._size > LONGEST_EVENT:
                raise EventTooLongError
        return []
