"""One line of stderr that is drawn anew while something goes on, and goes when it is over."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from medchat.cli.output import stderr_redraws

#: Seconds between two drawings.
_PAUSE = 0.1
_CLEAR = "\r\x1b[K"


class MovingLine:
    """Shows texts, each in the place of the one before; nothing where stderr cannot redraw a line (not `moves`)."""

    def __init__(self) -> None:
        self.moves = stderr_redraws()
        self._drawn_at = 0.0

    def __enter__(self) -> MovingLine:
        return self

    def show(self, text: str) -> None:
        """Draw `text`, unless the last one was drawn a moment ago."""
        now = time.monotonic()
        if self.moves and now - self._drawn_at >= _PAUSE:
            self._drawn_at = now
            sys.stderr.write(_CLEAR + text)
            sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn_at:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
