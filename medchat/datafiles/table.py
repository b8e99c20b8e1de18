"""CSV and TSV: each row is a record whose fields are the columns of the first row."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from medchat.datafiles.fields import sides_named
from medchat.datafiles.json_values import CONVERT, MAX_RECORD_BYTES, BrokenData, Item, not_utf8, too_long
from medchat.language import say


class _Lines:
    """The lines of a UTF-8 stream as text, counted; no row is read over `MAX_RECORD_BYTES`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._first, self._size = 1, 0
        self.number = 0

    def begin_row(self) -> int:
        """Return the number of the line on which the next row begins."""
        self._first, self._size = self.number + 1, 0
        return self._first

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_RECORD_BYTES + 1):
            self.number += 1
            self._size += len(line)
            if self._size > MAX_RECORD_BYTES:
                raise too_long(self._first)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                raise BrokenData(self.number, not_utf8(), CONVERT) from None
            yield text.lstrip("\ufeff") if self.number == 1 else text


def columns(text: str, delimiter: str) -> list[str]:
    """Return the names in a table's first line, as far as it is one: [] if it cannot be read."""
    with _long_fields():
        try:
            return [
                name.strip() for name in next(csv.reader([text.lstrip("\ufeff")], delimiter=delimiter), [])
            ]
        except csv.Error:
            return []


def states_delimiter(line: str) -> bool:
    """Whether a first line only tells Excel what stands between the columns: `sep=;`."""
    return len(line.strip()) <= len("sep=;") and line.strip().casefold().startswith("sep=")


def table_items(file: IO[bytes], delimiter: str, is_known: Callable[[str], bool]) -> Iterator[Item]:
    """Yield each row as a mapping from column to text, empty cells left out.

    Raises BrokenData where `is_known` knows none of the columns, a row is too long or quotes are not closed.

    Rows of empty cells are passed over. One that has more cells than there are columns, or fewer, is a bad record;
    empty cells at its end do not count.
    """
    lines = _Lines(file)
    rows = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    with _long_fields():
        head = (row for _, row in _rows(rows, lines) if any(row) and not states_delimiter(row[0]))
        names = _names(next(head, []), is_known)
        for line, row in _rows(rows, lines):
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(names) and not any(row[len(names) :]):
                row = row[: len(names)]  # commas at the end, as some programs write them
            if len(row) != len(names):
                yield Item(line, problem=_ragged(len(row), len(names)))
            else:
                yield Item(line, {name: cell for name, cell in zip(names, row, strict=True) if cell.strip()})


def _rows(rows: Iterator[list[str]], lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line it begins on."""
    while True:
        line = lines.begin_row()
        try:
            yield line, next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise too_long(line) from None
            if "new-line character" in str(error):
                raise BrokenData(
                    line,
                    say(
                        "这里的行只以 CR 结尾（旧式 Mac 格式）",
                        "lines end with CR alone here, as on old Macs",
                    ),
                    "tr '\\r' '\\n' < old.csv > new.csv",
                ) from None
            raise BrokenData(
                line,
                say("从这里开始的引号不成对", "the quotes that begin here are not in pairs"),
                say(
                    '引号要成对，文本里的引号写成两个：""',
                    'close the quotes; one inside a text is written twice: ""',
                ),
            ) from None


def _names(row: list[str], is_known: Callable[[str], bool]) -> list[str]:
    names = [
        name.strip() or say(f"第 {number} 列", f"column {number}") for number, name in enumerate(row, start=1)
    ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BrokenData(
            1,
            say(f"有两列都叫 {twice[0]}", f"two columns are called {twice[0]}"),
            say("给其中一列改名", "give one of them another name"),
        )
    if not any(map(is_known, names)) and sides_named(names) is None:
        listed = ", ".join(names)
        raise BrokenData(
            1,
            say(f"第一行没有认得的列名：{listed}", f"no column of the first row is known: {listed}"),
            say(
                "在第一行写上列名，如 question,answer；或用 --question-field 和 --answer-field 指定",
                "name the columns in the first row, such as question,answer, or by --question-field and --answer-field",
            ),
        )
    return names


def _ragged(cells: int, columns: int) -> str:
    return say(
        f"这一行有 {cells} 格，表头有 {columns} 列",
        f"the row has {cells} cells, the first row {columns} columns",
    )


@contextmanager
def _long_fields() -> Iterator[None]:
    # The limit is the csv module's own and one for the whole program: set for as long as it is needed.
    before = csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)
