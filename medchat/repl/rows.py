"""Layouts shared by several commands: two columns of text, and a one-line excerpt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells, set_cell_size

from medchat.cli.cjk_wrap import wrapped
from medchat.repl.screen import unforgeable
from medchat.sanitize import sanitize_line


def two_columns(rows: Sequence[tuple[str, str]], width: int) -> str:
    """Return two columns of text for `width` cells, side by side.

    A row whose left text takes over half of the width has its right one below; all rows do if more than a
    fifth of them are so wide. Continuation lines are indented to their own column.
    """
    sizes = [cell_len(left) for left, _ in rows]
    beside = [size for size in sizes if 2 * size <= width]
    widest = max(beside, default=0) if 5 * len(beside) >= 4 * len(rows) else -1
    return "\n".join(
        _indented(right, f"  {set_cell_size(left, widest)}  ", width)
        if size <= widest
        else _indented(left, "  ", width) + f"\n{_indented(right, ' ' * 6, width)}" * bool(right)
        for (left, right), size in zip(rows, sizes, strict=True)
    )


def _indented(text: str, before: str, width: int) -> str:
    """Return `before` and the text wrapped to `width` cells, continuation lines indented like the first."""
    indent = cell_len(before)
    return f"{before}{wrapped(text, max(1, width - indent))}".replace("\n", "\n" + " " * indent).rstrip()


def excerpt(text: str, cells: int = 60) -> str:
    """Return the beginning of untrusted `text`, sanitized, on one line of at most `cells` cells."""
    line = unforgeable(sanitize_line(text, 2 * cells))
    return line if cell_len(line) <= cells else chop_cells(line, cells - 1)[0] + "…"
