"""Rows of text in columns, by what they take on a screen: a Chinese character is two cells wide."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len


def aligned(
    rows: Sequence[Sequence[str]], *, indent: int = 2, gap: int = 2, right: Sequence[int] = ()
) -> list[str]:
    """Return a line for each row, columns aligned; those in `right` (from 0) to the right. The last runs on."""
    count = max((len(row) for row in rows), default=0)
    widths = [max((cell_len(row[at]) for row in rows if at < len(row)), default=0) for at in range(count)]
    lines = []
    for row in rows:
        cells = []
        for at, text in enumerate(row):
            blanks = " " * (widths[at] - cell_len(text))
            cells.append(blanks + text if at in right else text + blanks)
        lines.append((" " * indent + (" " * gap).join(cells)).rstrip())
    return lines
