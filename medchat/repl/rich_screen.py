"""The screen with colour: finished Markdown blocks are printed into the scrollback, only the rest is redrawn."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from medchat.cli.cjk_wrap import WIDEST, wrapped
from medchat.repl.markdown import MixedText, rendered
from medchat.repl.moving_rows import MovingRows
from medchat.repl.screen import OURS, PROMPT, Tone, unforgeable, untrusted
from medchat.repl.unfinished import Unfinished
from medchat.sanitize import StreamSanitizer, sanitize_line

#: Seconds between two redraws of the unfinished part.
FRAME_SECONDS = 0.08
#: Terminals accept about 75 KB of text; xterm silently drops a longer sequence.
MOST_CLIPBOARD_BYTES = 74_994

#: The styles of the program's lines by theme: the default, one without dim text, one without colours.
_STYLES = {
    "default": {
        Tone.REMARK: Style(dim=True),
        Tone.WARNING: Style(color="yellow"),
        Tone.URGENT: Style(color="red", bold=True),
    },
    "bright": {
        Tone.REMARK: Style(color="cyan"),
        Tone.WARNING: Style(color="bright_yellow", bold=True),
        Tone.URGENT: Style(color="bright_red", bold=True, reverse=True),
    },
    "mono": {
        Tone.REMARK: Style(),
        Tone.WARNING: Style(bold=True),
        Tone.URGENT: Style(bold=True, reverse=True),
    },
}


class RichScreen:
    """Draws on the terminal of `stream`; `theme` is one of THEMES. Tests fix `width` and `clock`."""

    def __init__(
        self,
        stream: TextIO,
        width: int | None = None,
        theme: str = "default",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._styles = _STYLES[theme]
        self._console = Console(
            file=stream, force_terminal=True, markup=False, emoji=False, highlight=False, width=width
        )
        self._inert = StreamSanitizer()
        self._unfinished = Unfinished()
        self._blocks = 0
        self._waiting = self._typed = ""
        self._preview: Callable[[], Sequence[Sequence[Segment]]] | None = None
        self._moving = MovingRows(self._console)
        self._drawn_at = 0.0
        self._stale = False

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        return min(self._console.width, WIDEST)

    def show(self, text: str) -> None:
        """Print the result of a command."""
        self.print_rows(self._rendered(text))

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print the program's lines, wrapped so that each row begins with the glyph."""
        style = self._styles[tone]
        lines = self._rendered(untrusted(text), less=len(OURS) + 1, style=style)
        self.print_rows([[Segment(f"{OURS} ", style), *line] for line in lines])

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Show what is pending, its progress and the elapsed time."""
        text = " ".join(part for part in (f"{what}…", progress, f"{seconds:.0f}s") if part) if what else ""
        if text != self._waiting:
            self._waiting = text
            self._stale = True

    def markdown_rows(self, text: str, width: int) -> list[list[Segment]]:
        """Return the rows of a model's Markdown, already sanitized, at `width` cells."""
        return rendered(text, self._console, width)

    def print_rows(self, rows: Sequence[Sequence[Segment]]) -> None:
        """Print finished rows into the scrollback, above what is still being redrawn."""
        if rows:
            self._moving.print_above(rows, self._moving_lines() if self._moving else ())

    def preview_rows(self, rows: Callable[[], Sequence[Sequence[Segment]]]) -> None:
        """Redraw the result of `rows` in place of an answer's unfinished part, until the answer ends."""
        self._preview = rows
        self._stale = True

    def show_typed(self, text: str) -> None:
        """Show the end of the typed text on one line, below the answer's unfinished part."""
        line = (
            unforgeable(sanitize_line(text[-4 * self.width :].replace("\n", "⏎"), 4 * self.width))
            if text
            else ""
        )
        while cell_len(line) > self.width - 4:
            line = line[1:]
        if line != self._typed:
            self._typed = line
            self._stale = True

    def piece(self, text: str) -> None:
        """Add the next piece; blocks that it finishes are printed at once."""
        self._add(self._inert.feed(text))

    def end_answer(self) -> None:
        """Print the rest and end the redrawing."""
        self._waiting = self._typed = ""
        self._preview = None
        self._add(self._inert.flush())
        for block in self._unfinished.take():
            self._print_block(block)
        self._moving.draw(())
        self._stale = False
        self._blocks = 0

    def tick(self) -> None:
        """Redraw the unfinished part if it has changed."""
        if self._stale and self._clock() - self._drawn_at >= FRAME_SECONDS:
            self._draw()

    def is_filled_by(self, text: str) -> bool:
        """Whether the text, blank lines between blocks included, has as many rows as the window."""
        return wrapped(text, self.width).count("\n") + 1 >= self._console.height

    def resumed(self) -> None:
        """Redraw the unfinished part, below what the shell has written."""
        self._moving.leave()
        self._stale = True

    def ring(self) -> None:
        """Ring the bell."""
        self._console.bell()

    def use_theme(self, name: str) -> None:
        """Change the colours of the program's lines."""
        self._styles = _STYLES[name]

    def clear(self) -> None:
        """Empty the screen; the scrollback stays."""
        self._console.clear()

    def copy(self, text: str) -> bool:
        """Send `text` to the terminal's clipboard, unless it is too long."""
        sequence = clipboard_sequence(text)
        if sequence is not None:
            self._console.file.write(sequence)
            self._console.file.flush()
        return sequence is not None

    def _add(self, shown: str) -> None:
        if not shown:
            return
        self._waiting = ""
        for block in self._unfinished.add(unforgeable(shown)):
            self._print_block(block)
        self._stale = True
        self.tick()

    def _print_block(self, block: str) -> None:
        lines = self.markdown_rows(block, self.width)
        if lines:
            separated = [[], *lines] if self._blocks else lines
            self._blocks += 1  # before printing, so that what is redrawn below keeps its distance
            self.print_rows(separated)

    def _rendered(self, text: str, less: int = 0, style: Style | None = None) -> list[list[Segment]]:
        options = self._console.options.update(width=max(1, self.width - less), height=None)
        return self._console.render_lines(MixedText(text), options, style=style, pad=False)

    def _moving_lines(self) -> list[list[Segment]]:
        """Return the unfinished block's last rows, as many as surely fit the screen, and what is being typed."""
        typed = [[Segment(f"{PROMPT} {self._typed}", self._styles[Tone.REMARK])]] if self._typed else []
        return [*self._unfinished_lines(max(1, self._console.height - 2 - len(typed))), *typed]

    def _unfinished_lines(self, most: int) -> list[list[Segment]]:
        if self._preview is not None:
            return [list(row) for row in self._preview()][-most:]
        text = self._unfinished.last_lines(most, self.width)
        if not text.strip():
            if not self._waiting:
                return []
            return self._rendered(self._waiting, style=self._styles[Tone.REMARK])[-most:]
        lines = self.markdown_rows(text, self.width)
        separated = [[], *lines] if self._blocks else lines
        return separated[-most:]

    def _draw(self) -> None:
        self._moving.draw(self._moving_lines())
        self._drawn_at = self._clock()
        self._stale = False


def clipboard_sequence(text: str) -> str | None:
    """Return the sequence that copies `text` to the clipboard (OSC 52), None if most terminals would drop it.

    Untrusted text is sent in Base64 only, and only when the user asks.
    """
    content = text.encode("utf-8", "replace")
    if len(content) > MOST_CLIPBOARD_BYTES:
        return None
    return f"\x1b]52;c;{base64.b64encode(content).decode('ascii')}\x07"
