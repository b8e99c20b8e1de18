"""Where a line of mixed Chinese and Latin text may be broken, measured in terminal cells.

rich breaks at blanks only: a Chinese sentence with one Latin word in it would leave half a line empty.
Here a line also breaks between two characters if either is wide, but not before a closing mark nor
behind an opening one (the rule Chinese typesetting calls 避头尾, as in GB/T 15834).
"""

from __future__ import annotations

import shutil
from itertools import pairwise

from rich.cells import cell_len

#: Wider text is hard to read.
WIDEST = 120
#: What a column of a table takes at least: one wide character, and what stands between two columns.
LEAST_COLUMN = 4

_NOT_FIRST = frozenset("，。、；：？！）》】」』”’〉〕…—～·％℃,.;:?!)]}%")
_NOT_LAST = frozenset("（《【「『“‘〈〔([{￥$")


def _units(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the stretches that stay together; blanks belong to the stretch before them."""
    units: list[tuple[int, int]] = []
    start = 0
    for index in range(1, len(text)):
        before, here = text[index - 1], text[index]
        if before.isspace() or here.isspace():
            together = here.isspace()
        elif here in _NOT_FIRST or before in _NOT_LAST:
            together = True
        else:
            # A mark of no width belongs to the character before it, and so does what an emoji joiner joins.
            joined = cell_len(here) == 0 or before == "\u200d"
            together = joined or (cell_len(before) < 2 and cell_len(here) < 2)
        if not together:
            units.append((start, index))
            start = index
    return [*units, (start, len(text))] if text else []


def break_offsets(text: str, width: int) -> list[int]:
    """Return the indices at which `text` (one line) begins a new line of at most `width` cells.

    Blanks at the end of a line may reach over it. A stretch wider than a whole line is cut anywhere.
    """
    offsets: list[int] = []
    used = 0
    for start, end in _units(text):
        unit = text[start:end]
        if used + cell_len(unit.rstrip()) <= width:
            used += cell_len(unit)
            continue
        if used and start:
            offsets.append(start)
        used = 0
        for index, character in enumerate(unit, start):
            size = cell_len(character)
            if used + size > width and used and not character.isspace():
                offsets.append(index)
                used = 0
            used += size
    return offsets


def wrapped(text: str, width: int) -> str:
    """Return `text` with its lines broken to `width` cells."""
    lines = []
    for line in text.split("\n"):
        borders = [0, *break_offsets(line, width), len(line)]
        lines += [line[start:end].rstrip() for start, end in pairwise(borders)]
    return "\n".join(lines)


def taller_than_screen(text: str) -> bool:
    """Whether `text` takes more lines than this terminal shows at once."""
    columns, rows = shutil.get_terminal_size()
    return wrapped(text, max(1, min(columns, WIDEST))).count("\n") + 1 >= rows
