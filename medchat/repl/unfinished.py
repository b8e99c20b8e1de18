"""The unfinished part of an answer: finished blocks are split off, the last lines are shown.

The total cost is linear in the answer's length: how often a block is parsed again to see whether it has ended
is limited by its length, and the redrawn rows are rendered from as much text as the screen holds, however
long the block has become.
"""

from __future__ import annotations

import re

from medchat.cli.cjk_wrap import LEAST_COLUMN
from medchat.repl.markdown_syntax import split_finished

#: All parsing for ends of blocks may cost this many times the answer's length, the second number after a line
#: that can end a block. Most ends are then found at once, and each before the answer has grown by a fifth.
_READINGS, _READINGS_AT_A_BORDER = 6, 14
_BORDER = re.compile(r"\s*(`{3,}|~{3,})?\s*")
_LONGEST_BORDER = 80
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^\n]*\n")
_TABLE = re.compile(r"(?=[^\n|]*\|)[^\n]*\n([ |:]*-[-| :]*)\n")
#: The number of lines above the visible ones that are searched for one that is not indented.
_FURTHER_UP = 12


class Unfinished:
    """The unfinished part of one answer's Markdown, already sanitized."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._came = 0
        self._read = 0
        self._line = ""  # the beginning of the last, incomplete line
        self._border = False  # a line that can end a block came, and was not parsed yet

    def add(self, text: str) -> list[str]:
        """Add the next piece and return the blocks that have ended, each without what follows it."""
        if not self._length:
            text = text.lstrip("\n")
        self._pieces.append(text)
        self._length += len(text)
        self._came += len(text)
        first, *others = text.split("\n")
        ended = [self._line + first, *others[:-1]] if others else []
        self._line = others[-1] if others else (self._line + first)[:_LONGEST_BORDER]
        border = self._border
        self._border = border or any(map(self._may_end, ended))
        most = _READINGS_AT_A_BORDER if border else _READINGS
        begun = any(line.strip() for line in ended)  # after a blank line alone nothing has ended
        if not begun or self._read + self._length > most * self._came:
            return []
        self._border = any(map(self._may_end, ended))
        self._read += self._length
        finished, rest = split_finished(self.text)
        self._keep(rest.lstrip("\n"))
        return finished

    def take(self) -> list[str]:
        """Return the blocks of the rest, and start another answer."""
        finished, rest = split_finished(self.text)
        self._keep("")
        self._came = self._read = 0
        self._line, self._border = "", False
        return [*finished, rest]

    @property
    def text(self) -> str:
        """Everything that is unfinished."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def last_lines(self, count: int, width: int) -> str:
        """Return Markdown that shows what `text` would show in its last `count` rows of `width` cells.

        A table keeps its header and a fence its first line, without which their rows would parse differently,
        unless no screen could hold it: it is redrawn each time.
        """
        text, most = self.text, 2 * count * width
        start = max(_start_of_last(text, count), len(text) - most)
        if start <= 0:
            return text
        opening = _FENCE.match(text, 0, most) or _head(text, most, width)
        if opening is None:
            return text[_margin(text, start) :]
        return text[: opening.end()] + text[max(start, opening.end()) :]

    def _may_end(self, line: str) -> bool:
        """Whether such a line can end a block: a blank one, or in code the closing fence."""
        border = _BORDER.fullmatch(line[:_LONGEST_BORDER])
        return border is not None and bool(border[1] or not _FENCE.match(self._pieces[0]))

    def _keep(self, text: str) -> None:
        self._pieces, self._length = ([text], len(text)) if text else ([], 0)


def _start_of_last(text: str, lines: int) -> int:
    """Return the offset at which the last `lines` lines begin."""
    start = len(text) - text.endswith("\n")
    for _ in range(lines):
        start = text.rfind("\n", 0, start)
        if start < 0:
            return 0
    return start + 1


def _head(text: str, most: int, width: int) -> re.Match[str] | None:
    """Return the header of the table `text`, if it is not too long and its columns fit."""
    head = _TABLE.match(text, 0, most)
    return head if head and (head[1].count("|") - 1) * LEAST_COLUMN <= width else None


def _margin(text: str, start: int) -> int:
    """Return the offset of the line at `start`, or of the nearest one above it that is not indented.

    An item of a nested list, parsed without the outer one, would be code.
    """
    found = start
    for _ in range(_FURTHER_UP):
        if not text.startswith((" ", "\t"), found):
            return found
        found = text.rfind("\n", 0, max(0, found - 1)) + 1
    return start
