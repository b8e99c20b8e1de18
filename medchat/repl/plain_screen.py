"""The screen without colour or movement: every character is written once, in order."""

from __future__ import annotations

import shutil
from typing import TextIO

from medchat.cli.cjk_wrap import WIDEST, taller_than_screen
from medchat.repl.screen import OURS, Tone, unforgeable, untrusted
from medchat.sanitize import StreamSanitizer

#: Seconds after which a wait is reported at all.
_WORTH_SAYING = 1.0


class PlainScreen:
    """Writes answers to `answers` and everything else to `aside`; on a terminal both are the same."""

    def __init__(self, answers: TextIO, aside: TextIO) -> None:
        self._answers = answers
        self._aside = aside
        self._inert = StreamSanitizer()
        self._line_open = False
        self._waiting = ""

    @property
    def width(self) -> int:
        """How many cells a line takes; 80 where there is no terminal."""
        return min(shutil.get_terminal_size().columns, WIDEST)

    def show(self, text: str) -> None:
        """Print the result of a command."""
        self._write(self._aside, text + "\n")

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print the program's lines. An urgent one is also written before the answer if that goes elsewhere."""
        framed = "".join(f"{OURS} {line}\n" for line in untrusted(text).split("\n"))
        if self._line_open and self._answers is self._aside:
            self._close_line()
        self._write(self._aside, framed)
        if tone is Tone.URGENT and self._answers is not self._aside:
            self._write(self._answers, framed)

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Say it once, if it takes a while: a line that counts seconds would have to be redrawn."""
        if not what:
            self._waiting = ""
        elif what != self._waiting and seconds >= _WORTH_SAYING:
            self.tell(what)
            self._waiting = what

    def show_typed(self, text: str) -> None:
        """Do nothing: this screen is not redrawn."""

    def piece(self, text: str) -> None:
        """Write the piece as it comes."""
        self._write_answer(self._inert.feed(text))

    def end_answer(self) -> None:
        """Write what the sanitizer held back, and end the line."""
        self._write_answer(self._inert.flush())
        self._close_line()
        self._waiting = ""

    def tick(self) -> None:
        """Do nothing: this screen is not redrawn."""

    def is_filled_by(self, text: str) -> bool:
        """On a terminal, whether the text fills all of its lines; elsewhere nothing scrolls away."""
        return self._answers is self._aside and taller_than_screen(text)

    def resumed(self) -> None:
        """Do nothing: this screen is not redrawn."""

    def ring(self) -> None:
        """Ring the bell of a terminal."""
        if self._answers is self._aside:
            self._write(self._aside, "\a")

    def use_theme(self, name: str) -> None:
        """Do nothing: there are no colours."""

    def clear(self) -> None:
        """Do nothing: output is never erased here."""

    def copy(self, text: str) -> bool:
        """Return False: only text is ever written here."""
        return False

    def _write_answer(self, shown: str) -> None:
        if shown:
            self._line_open = not shown.endswith("\n")
            self._write(self._answers, unforgeable(shown))

    def _close_line(self) -> None:
        if self._line_open:
            self._write(self._answers, "\n")
            self._line_open = False

    def _write(self, stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()
