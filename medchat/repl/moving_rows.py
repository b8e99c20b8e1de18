"""Rows at the bottom of a terminal that are redrawn: only the differences are written."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

Row = Sequence[Segment]

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_ERASE_BELOW = "\x1b[J"
#: The largest number of rows scrolled by one drawing; beyond that all are rewritten.
_MOST_SCROLLED = 5


class _Rows:
    """Rendered rows as a rich renderable, with a line end between two."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, row in enumerate(self._rows):
            if number:
                yield Segment.line()
            yield from row


class MovingRows:
    """The redrawn rows, and printing of permanent rows above them.

    While there are such rows the cursor is hidden and stays at the end of the last one, so that only what is
    appended to an answer is written: the width that a terminal assumes for a character does not matter.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[list[Segment]] = []
        self._size = console.size
        self._left = False

    def __bool__(self) -> bool:
        return bool(self._shown)

    def draw(self, rows: Sequence[Row]) -> None:
        """Show these rows in place of the previous ones; no rows end the redrawing."""
        self._replace([], rows)

    def print_above(self, rows: Sequence[Row], moving: Sequence[Row] = ()) -> None:
        """Print permanent rows, and continue with other redrawn rows below them."""
        self._replace(rows, moving)

    def leave(self) -> None:
        """Leave the rows where they are: something else was written below them, and the next are drawn there."""
        self._left = True

    def _replace(self, printed: Sequence[Row], moving: Sequence[Row]) -> None:
        before, rows = self._shown, [_as_written(row) for row in (*printed, *moving)]
        size, anew = self._console.size, self._left
        if anew:
            written = "\r" + _ERASE_BELOW + self._text(rows)
        elif before and size != self._size:  # the terminal was resized and has rewrapped the rows
            written = self._back_to(0) + self._text(rows)
        else:
            written = self._difference(before, rows)
        self._shown, self._size, self._left = rows[len(printed) :], size, False
        if rows and not self._shown:
            written += "\n"
        if self._shown and (not before or anew):
            written = _HIDE_CURSOR + written
        elif before and not self._shown:
            written += _SHOW_CURSOR
        if written:
            self._console.file.write(written)
            self._console.file.flush()

    def _difference(self, before: list[list[Segment]], rows: list[list[Segment]]) -> str:
        """Return what to write to change the screen from `before`, the cursor at its end, to `rows`."""
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, rows, strict=False))))
        if same == len(before):
            return self._text([[], *rows[same:]] if before and rows[same:] else rows[same:])
        added = _added(before[same], rows[same]) if same == len(before) - 1 and same < len(rows) else None
        if added is not None:
            return self._text([added, *rows[same + 1 :]])
        gone = 0 if same else _scrolled(before, rows)
        if gone:
            same = len(before) - 1 - gone
            down = f"\x1b[{same}B" if same else ""
            return f"\x1b[{len(before) - 1}A\r\x1b[{gone}M{down}{_ERASE_BELOW}" + self._text(rows[same:])
        if same == len(rows) and rows:  # fewer: the cursor goes to the end of the last one that stays
            same -= 1
        return self._back_to(same) + self._text(rows[same:])

    def _back_to(self, row: int) -> str:
        """Return the sequence that moves the cursor to the beginning of a visible row and erases from there."""
        up = len(self._shown) - 1 - row
        return (f"\x1b[{up}A" if up > 0 else "") + "\r" + _ERASE_BELOW

    def _text(self, rows: Sequence[Row]) -> str:
        if not rows:
            return ""
        with self._console.capture() as captured:
            self._console.print(_Rows(rows), soft_wrap=True, end="")
        return captured.get()


def _as_written(row: Row) -> list[Segment]:
    """Return a row without invisible parts: colours of spaces, and trailing spaces."""
    plain = [
        Segment(part.text) if part.text.isspace() and not _shows_on_blanks(part.style) else part
        for part in row
    ]
    parts = list(Segment.simplify(part for part in plain if part.text))
    if parts and not _shows_on_blanks(parts[-1].style):
        last = parts.pop()
        text = last.text.rstrip(" ")
        parts += [Segment(text, last.style)] if text else []
    return parts


def _shows_on_blanks(style: Style | None) -> bool:
    return style is not None and bool(style.bgcolor or style.reverse or style.underline or style.strike)


def _scrolled(before: Sequence[Row], rows: Sequence[Row]) -> int:
    """Return how many rows were removed at the top while the others, except the last, are unchanged; 0 for none."""
    return next(
        (
            gone
            for gone in range(1, min(_MOST_SCROLLED + 1, len(before) - 1))
            if before[gone:-1] == rows[: len(before) - 1 - gone] and len(rows) >= len(before) - gone
        ),
        0,
    )


def _added(before: Row, after: Row) -> list[Segment] | None:
    """Return the suffix that `after` adds to `before`, None if it does not begin with it."""
    rest = list(after)
    for segment in before:
        if not rest or rest[0].style != segment.style or not rest[0].text.startswith(segment.text):
            return None
        left = rest[0].text[len(segment.text) :]
        rest[:1] = [Segment(left, rest[0].style)] if left else []
        if left and segment is not before[-1]:
            return None
    return rest
