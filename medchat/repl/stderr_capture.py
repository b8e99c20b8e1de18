"""Captures what libraries print while the model loads or answers, to keep it out of prompt and answer."""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Callable
from types import TracebackType


class StderrCapture(io.TextIOBase):
    """Replaces `sys.stdout` and `sys.stderr`: complete lines are buffered until the main thread shows them.

    Of a line overwritten by carriage returns (a progress bar) the last state counts. `on_line` is called in
    the thread that printed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_line: Callable[[], None] = lambda: None
        self._open = ""
        self._lock = threading.Lock()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._before = (sys.stdout, sys.stderr)

    def __enter__(self) -> StderrCapture:
        self._before = (sys.stdout, sys.stderr)
        sys.stdout = sys.stderr = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout, sys.stderr = self._before

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Buffer `text`; nothing is shown yet."""
        with self._lock:
            *lines, self._open = (self._open + text).split("\n")
            for line in lines:
                last_state = _last_state(line)
                if last_state.strip():
                    self._lines.put(last_state)
            self._open = _last_state(self._open) + "\r" * self._open.endswith("\r")
        if lines:
            self.on_line()
        return len(text)

    def take(self) -> list[str]:
        """Return the lines that came since the last call."""
        taken = []
        while not self._lines.empty():
            taken.append(self._lines.get())
        return taken


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
