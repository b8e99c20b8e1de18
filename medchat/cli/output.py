"""Writing to the standard streams: a closed pipe is quiet, no encoding crashes, one line can be redrawn."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

TYPE_CHECKING = False  # as in medchat.registry: this module is on the path of `medchat --help`
if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

    from medchat.errors import MedchatError

#: The real stdout while `ReservedStdout` is in force.
_reserved: TextIO | None = None

#: The reader went away (`medchat ask … | head -1`): not an error of ours, and nothing to say.
CLOSED_PIPE = 0
#: Seconds between two drawings.
_PAUSE = 0.1
_CLEAR = "\r\x1b[K"


def answer_stream() -> TextIO:
    """Return the stream for what a command was asked for: stdout, whatever else has taken its name."""
    return _reserved or sys.stdout


class ReservedStdout:
    """While inside, what plugins and libraries print goes to stderr, so that stdout carries the answer alone.

    On a terminal, where both are the same, nothing changes.
    """

    def __enter__(self) -> None:
        global _reserved
        self._before = _reserved
        if _reserved is None and sys.stdout is not None and not sys.stdout.isatty():
            _reserved, sys.stdout = sys.stdout, sys.stderr

    def __exit__(self, *raised: object) -> None:
        global _reserved
        if self._before is None and _reserved is not None:
            sys.stdout, _reserved = _reserved, None


def forgive_encoding() -> None:
    """Write characters that the terminal's encoding lacks as escapes instead of failing."""
    for stream in (answer_stream(), sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Point the closed standard output at nothing, so that the interpreter's last flush is quiet too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), answer_stream().fileno())


def write_out(text: str) -> int:
    """Write `text` to stdout and return the exit code: 0, also where the reader has gone."""
    forgive_encoding()
    try:
        stream = answer_stream()
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        silence_stdout()
        return CLOSED_PIPE
    return 0


def say_aside(text: str) -> None:
    """Write one line to stderr: everything that is not the answer goes there."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def failure_lines(error: MedchatError) -> list[str]:
    """Return the lines that show an error: what and where, then what to type next."""
    from medchat.language import say
    from medchat.sanitize import sanitize_line  # `medchat --help` shows none

    where = sanitize_line(error.where)
    place = say(f"（{where}）", f" ({where})") if where else ""
    lines = [say("错误：", "Error: ") + sanitize_line(error.what, 600) + place]
    if error.remedy:
        lines.append(say("下一步：", "Next: ") + sanitize_line(error.remedy, 600))
    return lines


# Rows of text in columns, by what they take on a screen: a Chinese character is two cells wide.


def aligned(
    rows: Sequence[Sequence[str]], *, indent: int = 2, gap: int = 2, right: Sequence[int] = ()
) -> list[str]:
    """Return a line for each row, columns aligned; those in `right` (from 0) to the right. The last runs on."""
    from rich.cells import cell_len  # slow to import, and `medchat --help` shows no table

    count = max((len(row) for row in rows), default=0)
    widths = [max((cell_len(row[at]) for row in rows if at < len(row)), default=0) for at in range(count)]
    lines = []
    for row in rows:
        cells = []
        for at, text in enumerate(row):
            blanks = " " * (widths[at] - cell_len(text))
            cells.append(blanks + text if at in right else text + blanks)
        lines.append((" " * indent + (" " * gap).join(cells)).rstrip())
    return lines


def stderr_redraws() -> bool:
    """Whether a line of stderr can be drawn again: on a terminal that is neither dumb nor without colour."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ


class MovingLine:
    """Shows texts, each in place of the one before; nothing where stderr cannot redraw a line (not `moves`)."""

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
