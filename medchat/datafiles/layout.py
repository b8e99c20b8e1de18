"""How the records of a text lie in it: told from what is in the file, with its name as a hint for tables alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

from medchat.datafiles.json_values import (
    MAX_RECORD_BYTES,
    BrokenData,
    Item,
    TextWindow,
    line_item,
    members,
    too_long,
    whole_array,
)
from medchat.datafiles.recognize import BEGINNING_BYTES
from medchat.datafiles.table import columns, states_delimiter
from medchat.datafiles.unread_text import is_document, refuse_columns, refuse_document
from medchat.language import say

#: `lists`: one object whose members hold the records; `objects`: JSON values one after the other, each on
#: as many lines as it likes; `csv`, `tsv` and `semicolons`: tables; `text`: a question a line.
Layout = Literal["array", "lines", "lists", "objects", "csv", "tsv", "semicolons", "text"]

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_TABLE_SUFFIXES: dict[str, Layout] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
DELIMITERS: dict[Layout, str] = {"csv": ",", "tsv": "\t", "semicolons": ";"}
#: What people call the list of records in a file that is one object.
_LISTS = frozenset(
    [
        "data",
        "train",
        "dev",
        "test",
        "valid",
        "validation",
        "eval",
        "examples",
        "records",
        "rows",
        "items",
        "instances",
        "samples",
        "dataset",
    ]
)
#: A message of a conversation has one of these.
_ROLE_NAMES = frozenset(("role", "from", "speaker"))


def layout_name(layout: Layout) -> str:
    """Return what a layout is called in the interface language."""
    return {
        "array": say("JSON 数组", "a JSON array"),
        "lines": say("JSONL", "JSON lines"),
        "lists": say("JSON 对象里的列表", "a list in a JSON object"),
        "objects": say("JSON 对象", "JSON objects"),
        "csv": say("CSV 表格", "a CSV table"),
        "tsv": say("TSV 表格", "a TSV table"),
        "semicolons": say("分号分隔的表格", "a table with semicolons"),
        "text": say("纯文本，每行一问", "plain text, a question a line"),
    }[layout]


def layout_of(
    open_again: Callable[[], IO[bytes]], path: Path, *, plain_text: bool, is_known: Callable[[str], bool]
) -> Layout:
    """Return the layout of a UTF-8 stream, which `open_again` opens at its beginning. `path` is its name.

    `plain_text`: any text may be a question a line, unless its name says JSON. `is_known` says of a column's
    name whether records have a field of that name. Raises BrokenData for a text of no layout, DataError for one of a
    kind that is named and not read.
    """
    suffix = path.suffix.lower()
    beginning = open_again().read(BEGINNING_BYTES)
    start = beginning.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not start:
        return "lines"
    refuse_columns(start, path)
    may_be_text = (plain_text or is_document(path)) and suffix not in JSON_SUFFIXES
    if start[0] == "[" and (not may_be_text or _is_array(open_again())):
        return "lines" if _lists_in_lines(start) else "array"
    if start[0] == "{":
        found = _layout_of_objects(open_again, start)
        if found != "objects" or not may_be_text or _is_value(open_again()):
            return found
    elif start[0] == '"' and line_item(1, start.split("\n", 1)[0]).is_json:
        return "lines"
    if table := _table(start, suffix, is_known):
        return table
    refuse_document(path)
    if may_be_text:
        return "text"
    if plain_text or _json_lines(start):
        return "lines"
    raise _no_layout()


def _no_layout() -> BrokenData:
    return BrokenData(
        1,
        say(
            "这里既不是 JSON，也不是第一行有列名的表格",
            "neither JSON nor a table whose first line names its columns",
        ),
        say(
            "每行一个 JSON 对象、一个 JSON 数组，或有 question 和 answer 两列的 CSV",
            "a JSON object a line, a JSON array, or CSV with the columns question and answer",
        ),
    )


def _lists_in_lines(start: str) -> bool:
    """Whether each line is a list of its own, such as the messages of one conversation."""
    first, second = [*(line.strip() for line in start.split("\n", 2)), ""][:2]
    return second.startswith("[") and line_item(1, first).is_json


def _is_array(file: IO[bytes]) -> bool:
    """Whether the text is an array to its end, or an array of objects at its beginning."""
    try:
        for number, item in enumerate(whole_array(TextWindow(file))):
            if number == 0 and isinstance(item.value, dict):
                return True
    except BrokenData:
        return False
    return True


def _is_value(file: IO[bytes]) -> bool:
    try:
        TextWindow(file).value()
    except BrokenData:
        return False
    return True


def _layout_of_objects(open_again: Callable[[], IO[bytes]], start: str) -> Layout:
    first = _first_line(open_again())
    several = first.is_json and len(_json_lines(start)) > 1
    if not several and _holds_lists(TextWindow(open_again())):
        return "lists"
    if first.is_json:
        return "lines"
    # The first record may be on several lines, or several on one line; or only the first line is broken.
    if _is_value(open_again()):
        return "objects"
    return "lines" if _json_lines(start) else "objects"


def _holds_lists(window: TextWindow) -> bool:
    """Whether the object that begins here holds a list of records under one of the usual names."""
    try:
        for name in members(window):
            if window.take("["):
                if name.casefold() not in _LISTS or window.next() != "{":
                    return False
                return not _ROLE_NAMES & {key.casefold() for key in window.value()}
            window.value()
    except BrokenData:
        return False
    return False


def _first_line(file: IO[bytes]) -> Item:
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if len(line) > MAX_RECORD_BYTES:
            raise too_long(1)
        if text := line.decode("utf-8", "replace").strip("\ufeff \t\r\n"):
            return line_item(1, text)
    return Item(1)


def _json_lines(start: str) -> list[str]:
    """Return the lines of the beginning that are, from their very first character on, an object."""
    return [line for line in start.split("\n") if line.startswith("{") and line_item(1, line).is_json]


def _table(start: str, suffix: str, is_known: Callable[[str], bool]) -> Layout | None:
    """Return which table it is: by its suffix, or because its first line names columns that records have."""
    lines = start.split("\n", 2)
    first = lines[1 if states_delimiter(lines[0]) and len(lines) > 1 else 0].rstrip("\r")
    named: Layout | None = _TABLE_SUFFIXES.get(suffix)
    known: dict[Layout, int] = {
        layout: sum(map(is_known, columns(first, mark))) for layout, mark in DELIMITERS.items()
    }
    best: Layout = max(known, key=lambda layout: known[layout])
    if named:
        return best if known[best] > known[named] else named
    cells = columns(first, DELIMITERS[best])
    return best if len(cells) > 1 and known[best] else None
