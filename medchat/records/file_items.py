"""The JSON values of a data file: JSON lines one at a time, an array element by element.

Of JSON lines no more than a line is in memory, of an array its text, once. Knows no records.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from medchat.errors import CheckpointError, DataError
from medchat.language import say
from medchat.records.json_items import BrokenArray, Item, array_items, line_item

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
