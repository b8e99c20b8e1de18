"""What several commands show: two columns of text, and one line in the place of a longer text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells, set_cell_size

from medchat.repl.screen import unforgeable
from medchat.sanitize import sanitize_line


def two_columns(rows: Sequence[tuple[str, str]], width: int) -> str:
    """Return two columns of text for `width` cells, side by side.

    A row whose left text takes over half of the width has its right one underneath; all rows do where more
    than a fifth of them are so.
    """
    sizes = [cell_len(left) for left, _ in rows]
    beside = [size for size in sizes if 2 * size <= width]
    widest = max(beside, default=0) if 5 * len(beside) >= 4 * len(rows) else -1
    return "\n".join(
        f"  {set_cell_size(left, widest)}  {right}".rstrip()
        if size <= widest
        else f"  {left}" + f"\n      {right}" * bool(right)
        for (left, right), size in zip(rows, sizes, strict=True)
    )


def excerpt(text: str, cells: int = 60) -> str:
    """Return the beginning of untrusted `text` on one line of at most `cells` cells, fit to be shown."""
    line = unforgeable(sanitize_line(text, 2 * cells))
    return line if cell_len(line) <= cells else chop_cells(line, cells - 1)[0] + "…"
