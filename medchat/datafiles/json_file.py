"""The JSON values of a data file: JSON lines one at a time, an array element by element.

Of JSON lines no more than a line is in memory, of an array its text, once. Knows no records.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

from medchat.errors import CheckpointError, DataError
from medchat.language import say

# The JSON values of a data file, each with the line it stands on.
#
# Knows no record: an item is any JSON value. Reads arrays element by element, so that each has its line.

_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON value. `problem` says why the line is none, and then `value` is None."""

    line: int
    value: Any = None
    problem: str = ""


class BrokenArray(ValueError):
    """The text is no JSON array; nothing after `line` can be told apart."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(say(f"{name} 不是 JSON 的数值", f"{name} is no JSON number"))


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return say(
            f"不是有效的 JSON（第 {error.colno} 列：{error.msg}）",
            f"not valid JSON (column {error.colno}: {error.msg})",
        )
    if isinstance(error, RecursionError):
        return say("JSON 嵌套过深", "JSON nested too deeply")
    return say(f"不是有效的 JSON（{error}）", f"not valid JSON ({error})")


def line_item(line: int, text: str) -> Item:
    """Return the value that one line of JSON lines holds."""
    try:
        return Item(line, json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        return Item(line, problem=_problem(error))


def array_items(text: str) -> Iterator[Item]:
    """Yield the elements of the JSON array `text`. Raises BrokenArray where it breaks off."""
    position, line, counted = _skip(text, 0), 1, 0
    position = _skip(text, position + 1)
    if text[position : position + 1] == "]":
        _expect_end(text, position + 1)
        return
    while True:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise BrokenArray(getattr(error, "lineno", line), _problem(error)) from None
        yield Item(line, value)
        position = _skip(text, position)
        if text[position : position + 1] == "]":
            _expect_end(text, position + 1)
            return
        if text[position : position + 1] != ",":
            raise _broken(text, position)
        position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _expect_end(text: str, position: int) -> None:
    if _skip(text, position) != len(text):
        raise _broken(text, _skip(text, position))


def _broken(text: str, position: int) -> BrokenArray:
    problem = (
        say("JSON 数组没有结束", "the JSON array does not end")
        if position >= len(text)
        else say("不是有效的 JSON 数组", "not a valid JSON array")
    )
    return BrokenArray(text.count("\n", 0, position) + 1, problem)


Layout = Literal["array", "lines"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: So much of the beginning is looked at to tell an array from JSON lines.
_BEGINNING = 1 << 12


@dataclass
class JsonFile:
    """An open data file. `items` can be gone through once."""

    path: Path
    layout: Layout
    _file: IO[bytes]
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """The digest of the file, once `items` is through."""
        return self._hash.hexdigest()

    def items(self) -> Iterator[Item]:
        """Yield the values. Raises DataError where an array breaks off, for what follows cannot be told."""
        if self.layout == "lines":
            yield from self._lines()
            return
        try:
            yield from array_items(self._text())
        except BrokenArray as error:
            raise DataError(
                error.problem,
                say("修正这一行后再试", "correct the line and try again"),
                where=f"{self.path}:{error.line}",
            ) from None

    def _lines(self) -> Iterator[Item]:
        for number, line in enumerate(self._file, start=1):
            self._hash.update(line)
            try:
                text = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
            except UnicodeDecodeError:
                yield Item(number, problem=_not_utf8())
                continue
            if text.strip():
                yield line_item(number, text.rstrip("\r\n"))

    def _text(self) -> str:
        # Mapped, the bytes are the page cache's: only the text is ours.
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            self._hash.update(mapped)
            first = len(_BYTE_ORDER_MARK) if mapped[: len(_BYTE_ORDER_MARK)] == _BYTE_ORDER_MARK else 0
            try:
                with memoryview(mapped) as whole, whole[first:] as rest:
                    return str(rest, "utf-8")
            except UnicodeDecodeError as error:
                line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(_not_utf8(), where=f"{self.path}:{line}")


@contextmanager
def open_json_file(path: Path) -> Iterator[JsonFile]:
    """Open a data file. Raises CheckpointError where it is not there or cannot be read."""
    try:
        if not path.is_file():
            found = path.exists()
            raise _unreadable(
                path, say("不是文件", "it is not a file") if found else say("找不到文件", "no such file")
            )
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    with file:
        beginning = file.read(_BEGINNING).removeprefix(_BYTE_ORDER_MARK).lstrip()
        file.seek(0)
        yield JsonFile(path, "array" if beginning.startswith(b"[") else "lines", file)


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        say(f"无法读取数据文件：{reason}", f"cannot read the data file: {reason}"),
        say("检查 --data 的路径", "check the path given to --data"),
        where=str(path),
    )


def _not_utf8() -> str:
    convert = "iconv -f GB18030 -t UTF-8"
    return say(f"不是 UTF-8 文本（可用 {convert} 转换）", f"not UTF-8 text ({convert} converts it)")
