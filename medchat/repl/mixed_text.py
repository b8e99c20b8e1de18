"""rich text that breaks its lines as mixed Chinese and Latin text is broken."""

from __future__ import annotations

from rich.console import Console, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.text import Text

from medchat.repl.line_breaks import break_offsets


class MixedText(Text):
    """Text whose lines break where `break_offsets` says."""

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """Return the lines of this text, each at most `width` cells."""
        lines = Lines()
        for line in self.split(allow_blank=True):
            if "\t" in line:
                line.expand_tabs(tab_size)
            pieces = line.divide(break_offsets(line.plain, max(1, width)))
            for piece in pieces:
                piece.rstrip()
            aligned = justify or self.justify or "left"
            if aligned in ("center", "right"):  # "left" would fill every line with blanks
                pieces.justify(console, width, justify=aligned, overflow="fold")
            lines.extend(pieces)
        return lines
