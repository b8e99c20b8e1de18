"""A screen that shows two answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Protocol, runtime_checkable

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment

from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.repl.screen import Screen, Tone, unforgeable, untrusted_line
from medchat.repl.unfinished import Unfinished
from medchat.sanitize import StreamSanitizer

#: The minimum width: half of a narrower screen is too little for lists and tables.
NARROWEST = 100
_GAP = " │ "
#: The number of rows of an answer's end that are shown while it streams.
_ROWS = 12

#: Rows of the screen, as rich renders them.
Rows = list[list[Segment]]


@runtime_checkable
class DrawingScreen(Screen, Protocol):
    """A screen that renders Markdown and redraws lines."""

    def markdown_rows(self, text: str, width: int) -> Rows:
        """Return the rows of a model's Markdown, already sanitized, at `width` cells."""
        ...

    def print_rows(self, rows: Sequence[Sequence[Segment]]) -> None:
        """Print finished rows."""
        ...

    def preview_rows(self, rows: Callable[[], Sequence[Sequence[Segment]]]) -> None:
        """Redraw the result of `rows` in place of an answer's unfinished part until the answer ends."""
        ...


class _Column:
    """One answer below its label: finished blocks are rendered once, the rest each time it is drawn."""

    def __init__(self, screen: DrawingScreen, label: str, width: int) -> None:
        self._screen = screen
        self._width = width
        shown = untrusted_line(label)
        self.head = [[Segment(set_cell_size(shown, width))], [Segment("─" * min(width, cell_len(shown)))]]
        self._inert = StreamSanitizer()
        self._unfinished = Unfinished()
        self._rows: Rows = []
        self.waiting = ""
        self.has_text = False

    def add(self, text: str) -> None:
        """Add the next piece. `text` is raw."""
        self.has_text = True
        for block in self._unfinished.add(unforgeable(self._inert.feed(text))):
            self._rows += self._behind(block)

    def end(self) -> Rows:
        """Treat the rest as finished, and return all rows of the answer."""
        left = self._unfinished.add(unforgeable(self._inert.flush()))
        for block in [*left, *self._unfinished.take()]:
            self._rows += self._behind(block)
        return self._rows

    def last(self, count: int) -> Rows:
        """Return the last rows, or what is pending."""
        if not self.has_text:
            return [[Segment(set_cell_size(self.waiting, self._width).rstrip())]]
        rest = self._behind(self._unfinished.last_lines(count, self._width))
        return [*self._rows[-count:], *rest][-count:]

    def _behind(self, block: str) -> Rows:
        rows = self._screen.markdown_rows(block, self._width)
        return [[], *rows] if rows and self._rows else rows


class Columns:
    """Shows the first answer on the left and, after `next`, the other on the right of `screen`.

    Both are redrawn while they stream and printed once, by `finish`. Remarks about an answer are kept until
    then and name it, unless they apply to both; urgent ones, and those before an answer, are shown at once.
    """

    def __init__(self, screen: DrawingScreen, labels: tuple[str, str]) -> None:
        self._screen = screen
        self._labels = labels
        self._half = (screen.width - len(_GAP)) // 2
        self._columns = [_Column(screen, label, self._half) for label in labels]
        self._side = 0
        #: The remarks, their tones, and the sides they apply to.
        self._remarks: dict[str, tuple[Tone, set[int]]] = {}
        screen.preview_rows(self._moving)

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        return self._screen.width

    def next(self) -> None:
        """Switch to the other answer."""
        self._side = 1

    def finish(self) -> None:
        """Print both columns, then the remarks."""
        self._screen.end_answer()
        left, right = self._columns
        self._screen.print_rows(self._beside([*left.head, *left.end()], [*right.head, *right.end()]))
        for text, (tone, sides) in self._remarks.items():
            of_one = len(sides) == 1 and text != ai_mark()
            named = say(f"{self._labels[min(sides)]}：", f"{self._labels[min(sides)]}: ") * of_one
            self._screen.tell(named + text, tone)

    def piece(self, text: str) -> None:
        """Add the next piece of an answer. `text` is raw."""
        self._columns[self._side].add(text)
        self._redraw()

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Show it in the answer's column."""
        shown = " ".join(part for part in (f"{what}…", progress, f"{seconds:.0f}s") if part) if what else ""
        if shown != self._columns[self._side].waiting:
            self._columns[self._side].waiting = shown
            self._redraw()

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print the program's lines; those about an answer later."""
        if tone is Tone.URGENT or (tone is Tone.WARNING and not self._columns[self._side].has_text):
            self._screen.tell(text, tone)
        else:
            self._remarks.setdefault(text, (tone, set()))[1].add(self._side)

    def show(self, text: str) -> None:
        """Print the result of a command."""
        self._screen.show(text)

    def end_answer(self) -> None:
        """Do nothing: `finish` prints the answer."""

    def show_typed(self, text: str) -> None:
        """Show what is being typed, on the underlying screen."""
        self._screen.show_typed(text)

    def tick(self) -> None:
        """Redraw."""
        self._screen.tick()

    def is_filled_by(self, text: str) -> bool:
        """Whether an answer scrolls what precedes it off the screen: at half the width, it is twice as long."""
        return self._screen.is_filled_by(text + text)

    def resumed(self) -> None:
        """Note that the program was suspended."""
        self._screen.resumed()

    def ring(self) -> None:
        """Ring the bell."""
        self._screen.ring()

    def use_theme(self, name: str) -> None:
        """Change the colours."""
        self._screen.use_theme(name)

    def copy(self, text: str) -> bool:
        """Copy with the underlying screen."""
        return self._screen.copy(text)

    def clear(self) -> None:
        """Empty the screen."""
        self._screen.clear()

    def _redraw(self) -> None:
        self._screen.preview_rows(self._moving)

    def _moving(self) -> Rows:
        left, right = self._columns
        return [*self._beside(left.head, right.head), *self._beside(left.last(_ROWS), right.last(_ROWS))]

    def _beside(self, left: Rows, right: Rows) -> Rows:
        gap, none = Segment(_GAP), list[Segment]()
        return [
            [*Segment.adjust_line_length(one, self._half), gap, *other]
            for one, other in zip_longest(left, right, fillvalue=none)
        ]
