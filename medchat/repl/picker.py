"""A picker for one of several lines: typing filters them, the arrows choose, Enter accepts, Esc cancels."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import HSplit, Layout, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.output import Output
from rich.cells import set_cell_size

from medchat.language import say
from medchat.repl.screen import PROMPT

#: The largest number of rows of the list, and the rows of the window that it leaves free.
_ROWS, _ROWS_LEFT = 12, 4


def fitting(typed: str, lines: Sequence[str]) -> list[int]:
    """Return the indices of the lines that contain each word of `typed`, exactly or as a subsequence.

    Those that contain the whole text come first. Case and width of letters are ignored.
    """
    wanted, folded = [_folded(word) for word in typed.split()], [_folded(line) for line in lines]
    whole = [all(word in line for word in wanted) for line in folded]
    spread = [all(_in_order(word, line) for word in wanted) for line in folded]
    return [
        *(i for i, fits in enumerate(whole) if fits),
        *(i for i, fits in enumerate(spread) if fits and not whole[i]),
    ]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _in_order(word: str, line: str) -> bool:
    letters = iter(line)
    return all(letter in letters for letter in word)


class Picker:
    """Shows lines below an input row, and restores the terminal."""

    def __init__(self, title: str, lines: Sequence[str], keys: Input, output: Output) -> None:
        """`lines` are printed unchanged; untrusted words in them went through `untrusted`."""
        self._lines = lines
        self._output = output
        self._found = list(range(len(lines)))
        self._at = 0
        self._typed = Buffer(multiline=False, on_text_changed=lambda _: self._narrow())
        mark = Window(FormattedTextControl(f"{title} {PROMPT} "), dont_extend_width=True, height=1)
        rows = HSplit(
            [
                VSplit([mark, Window(BufferControl(self._typed), height=1)]),
                Window(FormattedTextControl(self._shown), dont_extend_height=True),
            ]
        )
        self._application: Application[int | None] = Application(
            layout=Layout(rows), key_bindings=self._keys(), input=keys, output=output, erase_when_done=True
        )
        # The timeout after Esc is just long enough for a terminal to send the rest of an arrow key.
        self._application.ttimeoutlen = 0.05

    def run(self) -> int | None:
        """Return the index of the chosen line, None for none."""
        return self._application.run(handle_sigint=False)

    def _narrow(self) -> None:
        self._found = fitting(self._typed.text, self._lines)
        self._at = 0

    def _shown(self) -> StyleAndTextTuples:
        size = self._output.get_size()
        most = max(1, min(_ROWS, size.rows - _ROWS_LEFT))
        first = max(0, self._at - most + 1)
        shown: StyleAndTextTuples = []
        for place in range(first, min(first + most, len(self._found))):
            style = "reverse" if place == self._at else ""
            line = set_cell_size(self._lines[self._found[place]].rstrip(), max(1, size.columns - 1)).rstrip()
            shown.append((style, f"{line}\n"))
        note = say(
            f"{len(self._found)} 个 · 回车打开 · Esc 返回",
            f"{len(self._found)} · Enter opens · Esc goes back",
        )
        shown.append(("fg:ansibrightblack", set_cell_size(note, max(1, size.columns - 1)).rstrip()))
        return shown

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("up")
        @keys.add("c-p")
        def _up(event: KeyPressEvent) -> None:
            self._at = max(0, self._at - 1)

        @keys.add("down")
        @keys.add("c-n")
        def _down(event: KeyPressEvent) -> None:
            self._at = max(0, min(len(self._found) - 1, self._at + 1))

        @keys.add("enter")
        def _take(event: KeyPressEvent) -> None:
            if self._found:
                event.app.exit(result=self._found[self._at])

        @keys.add("escape", eager=True)
        @keys.add("c-c")
        @keys.add("c-d")
        def _leave(event: KeyPressEvent) -> None:
            event.app.exit(result=None)

        return keys
