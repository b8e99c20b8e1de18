"""Two answers side by side, as a screen that answers can be shown on."""

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

#: A narrower screen shows answers one after another: half of it is too little for lists and tables.
NARROWEST = 100
_GAP = " │ "
#: While an answer comes, so many rows of its end are shown.
_ROWS = 12

#: Rows of the screen, as rich lays them out.
Rows = list[list[Segment]]


@runtime_checkable
class DrawingScreen(Screen, Protocol):
    """A screen that lays Markdown out and moves lines."""

    def markdown_rows(self, text: str, width: int) -> Rows:
        """Return the rows of a model's Markdown, already sanitized, at `width` cells."""
        ...

    def print_rows(self, rows: Sequence[Sequence[Segment]]) -> None:
        """Print finished rows."""
        ...

    def preview_rows(self, rows: Callable[[], Sequence[Sequence[Segment]]]) -> None:
        """Draw what `rows` gives, again each time, in place of an answer's unfinished part until that ends."""
        ...


class _Column:
    """One answer under its label: blocks that have ended are laid out once, the rest each time it is drawn."""

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
        """Take the next piece. `text` is raw."""
        self.has_text = True
        for block in self._unfinished.add(unforgeable(self._inert.feed(text))):
            self._rows += self._behind(block)

    def end(self) -> Rows:
        """Take what is left of the answer for its end, and return all of it."""
        left = self._unfinished.add(unforgeable(self._inert.flush()))
        for block in [*left, *self._unfinished.take()]:
            self._rows += self._behind(block)
        return self._rows

    def last(self, count: int) -> Rows:
        """Return the rows of its end, or what is waited for."""
        if not self.has_text:
            return [[Segment(set_cell_size(self.waiting, self._width).rstrip())]]
        rest = self._behind(self._unfinished.last_lines(count, self._width))
        return [*self._rows[-count:], *rest][-count:]

    def _behind(self, block: str) -> Rows:
        rows = self._screen.markdown_rows(block, self._width)
        return [[], *rows] if rows and self._rows else rows


class Columns:
    """Shows the first answer on the left and, after `next`, the other on the right of `screen`.

    Both are redrawn while they come and printed once, by `finish`. What is said of an answer waits until then and names
    it, but for what is said of both; what is urgent, and what comes before an answer, is shown at once.
    """

    def __init__(self, screen: DrawingScreen, labels: tuple[str, str]) -> None:
        self._screen = screen
        self._labels = labels
        self._half = (screen.width - len(_GAP)) // 2
        self._columns = [_Column(screen, label, self._half) for label in labels]
        self._side = 0
        #: What was said, how it is meant, and of which sides.
        self._remarks: dict[str, tuple[Tone, set[int]]] = {}
        screen.preview_rows(self._moving)

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        return self._screen.width

    def next(self) -> None:
        """Take the other answer from now on."""
        self._side = 1

    def finish(self) -> None:
        """Print both columns, then what was remarked."""
        self._screen.end_answer()
        left, right = self._columns
        self._screen.print_rows(self._beside([*left.head, *left.end()], [*right.head, *right.end()]))
        for text, (tone, sides) in self._remarks.items():
            of_one = len(sides) == 1 and text != ai_mark()
            named = say(f"{self._labels[min(sides)]}：", f"{self._labels[min(sides)]}: ") * of_one
            self._screen.tell(named + text, tone)

    def piece(self, text: str) -> None:
        """Take the next piece of an answer. `text` is raw."""
        self._columns[self._side].add(text)
        self._redraw()

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Show it where the answer will come."""
        shown = " ".join(part for part in (f"{what}…", progress, f"{seconds:.0f}s") if part) if what else ""
        if shown != self._columns[self._side].waiting:
            self._columns[self._side].waiting = shown
            self._redraw()

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print lines of ours, those about an answer later."""
        if tone is Tone.URGENT or (tone is Tone.WARNING and not self._columns[self._side].has_text):
            self._screen.tell(text, tone)
        else:
            self._remarks.setdefault(text, (tone, set()))[1].add(self._side)

    def show(self, text: str) -> None:
        """Print the outcome of a command."""
        self._screen.show(text)

    def end_answer(self) -> None:
        """The answer is printed by `finish`."""

    def show_typed(self, text: str) -> None:
        """Pass on what is being typed."""
        self._screen.show_typed(text)

    def tick(self) -> None:
        """Redraw."""
        self._screen.tick()

    def is_filled_by(self, text: str) -> bool:
        """Whether an answer drives what stands before it off the screen: half as wide, it is twice as long."""
        return self._screen.is_filled_by(text + text)

    def resumed(self) -> None:
        """Take note that the program was suspended."""
        self._screen.resumed()

    def ring(self) -> None:
        """Ring the bell."""
        self._screen.ring()

    def use_theme(self, name: str) -> None:
        """Take other colours."""
        self._screen.use_theme(name)

    def copy(self, text: str) -> bool:
        """Pass on what is to be copied."""
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
