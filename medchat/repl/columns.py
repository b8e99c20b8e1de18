"""Two answers side by side, as a screen that answers can be shown on."""

from __future__ import annotations

from itertools import zip_longest

from rich.cells import cell_len, set_cell_size

from medchat.cli.cjk_wrap import wrapped
from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.repl.screen import Screen, Tone, untrusted

#: A narrower screen shows answers one after another.
NARROWEST = 72
_GAP = " │ "
#: While an answer comes, so many rows of its end are shown.
_ROWS = 12


class Columns:
    """Shows the first answer on the left and, after `next`, the other on the right of `screen`.

    Both are redrawn while they come and printed once, by `finish`. What is said of an answer waits until then and names
    it, but for what is said of both; what is urgent, and what comes before an answer, is shown at once.
    """

    def __init__(self, screen: Screen, labels: tuple[str, str]) -> None:
        self._screen = screen
        self._labels = labels
        self._texts = ["", ""]
        self._side = 0
        #: What was said, how it is meant, and of which sides.
        self._remarks: dict[str, tuple[Tone, set[int]]] = {}

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        return self._screen.width

    @property
    def moves(self) -> bool:
        """Whether lines are redrawn."""
        return True

    def next(self) -> None:
        """Take the other answer from now on."""
        self._side = 1

    def finish(self) -> None:
        """Print both columns, then what was remarked."""
        self._screen.end_answer()
        self._screen.show("\n".join(self._rows(*self._texts)))
        for text, (tone, sides) in self._remarks.items():
            of_one = len(sides) == 1 and text != ai_mark()
            named = say(f"{self._labels[min(sides)]}：", f"{self._labels[min(sides)]}: ") * of_one
            self._screen.tell(named + text, tone)

    def piece(self, text: str) -> None:
        """Take the next piece of an answer. `text` is raw."""
        self._texts[self._side] += text
        self._preview("")

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Show it where the answer will come."""
        if what:
            self._preview(" ".join(part for part in (f"{what}…", progress, f"{seconds:.0f}s") if part))

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print lines of ours, those about an answer later."""
        if tone is Tone.URGENT or (tone is Tone.WARNING and not self._texts[self._side]):
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

    def preview(self, text: str) -> None:
        """Pass on what moves."""
        self._screen.preview(text)

    def tick(self) -> None:
        """Redraw."""
        self._screen.tick()

    def is_filled_by(self, text: str) -> bool:
        """Whether an answer drives what stands before it off the screen: half as wide, it is twice as long."""
        return self._screen.is_filled_by(text + text)

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

    def _preview(self, waiting: str) -> None:
        # As much of the end as can be seen, however long the answers are.
        most = _ROWS * self.width
        ends = [text[-most:] for text in self._texts]
        if waiting and not ends[self._side]:
            ends[self._side] = waiting
        rows = self._rows(*ends)
        self._screen.preview("\n".join([rows[0], *rows[1:][-_ROWS:]]))

    def _rows(self, left: str, right: str) -> list[str]:
        half = (self.width - len(_GAP)) // 2
        columns = [
            [
                untrusted(label),
                "─" * min(half, cell_len(label)),
                *wrapped(untrusted(text).strip(), half).split("\n"),
            ]
            for label, text in zip(self._labels, (left, right), strict=True)
        ]
        return [
            f"{set_cell_size(one, half)}{_GAP}{other}".rstrip()
            for one, other in zip_longest(*columns, fillvalue="")
        ]
