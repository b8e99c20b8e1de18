"""One door to data files: opens what a user names, recognises what it is, and yields its values one by one.

Reads JSON lines, JSON arrays, objects in a row, an object with a list of records, CSV and TSV; and, where
that is requested, plain text. Any other kind of file is named with what to do. No more than one record is in
memory.
"""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medchat.datafiles.json_values import (
    MAX_RECORD_BYTES,
    BrokenData,
    Item,
    TextWindow,
    array_items,
    line_item,
    members,
    not_utf8,
    row_of_values,
    too_long,
    whole_array,
)
from medchat.datafiles.layout import DELIMITERS, Layout, layout_name, layout_of
from medchat.datafiles.recognize import BEGINNING_BYTES, encoding_of
from medchat.datafiles.table import table_items
from medchat.errors import CheckpointError, DataError
from medchat.language import say
from medchat.regular_files import TooLargeError, open_regular

#: The most that a data file may take.
MAX_FILE_BYTES = 64 << 30


class _Recoded(io.RawIOBase):
    """A stream in another encoding, read as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._ready = b""
        self._lines = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._file.read(len(buffer) // 2 or 1)
            try:
                text = self._decoder.decode(chunk, final=not chunk)
                self._ready = text.encode("utf-8")
            except UnicodeError:
                name = self._encoding.upper()
                raise BrokenData(
                    self._lines,
                    say(f"这一行之后不是有效的 {name} 文本", f"after this line it is not valid {name} text"),
                    say("在编辑器里另存为 UTF-8", "save it as UTF-8 in an editor"),
                ) from None
            self._lines += text.count("\n")
            if not chunk:
                break
        given, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


class _Hashed(io.RawIOBase):
    """A stream whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.digest.update(buffer[:read])
        return read


@dataclass
class DataFile:
    """An open data file. `items` can be gone through once. `encoding` is Python's name of it."""

    path: Path
    layout: Layout
    encoding: str
    _stream: IO[bytes]
    _hashed: _Hashed
    _is_known: Callable[[str], bool]

    @property
    def described(self) -> str:
        """The layout, and the encoding where it is not UTF-8, in the interface language."""
        name = layout_name(self.layout)
        return (
            name
            if self.encoding == "utf-8"
            else say("{0}，{1}", "{0}, {1}").format(name, self.encoding.upper())
        )

    @property
    def sha256(self) -> str:
        """The digest of the file, once `items` is through."""
        return self._hashed.digest.hexdigest()

    @property
    def is_counted(self) -> bool:
        """Whether records are better known by their number than by their line: several may be on one."""
        return self.layout in ("array", "lists", "objects")

    def items(self) -> Iterator[Item]:
        """Yield the values, rows of a table as objects of text. A line that is none has a `problem`.

        Raises DataError if what follows cannot be told apart, and for a record that is too large.
        """
        try:
            yield from self._items()
        except BrokenData as error:
            raise _broken(self.path, error) from None

    def _items(self) -> Iterator[Item]:
        if self.layout in ("lines", "text"):
            return self._lines()
        if self.layout in DELIMITERS:
            return table_items(self._stream, DELIMITERS[self.layout], self._is_known)
        window = TextWindow(self._stream)
        if self.layout == "lists":
            return _records_of_object(window)
        return whole_array(window) if self.layout == "array" else row_of_values(window)

    def _lines(self) -> Iterator[Item]:
        number = 0
        while line := self._stream.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                raise too_long(number)
            try:
                text = line.decode("utf-8").lstrip("\ufeff").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError:
                yield Item(number, problem=not_utf8())
                continue
            if text.strip():
                yield Item(number, text) if self.layout == "text" else line_item(number, text)


def _records_of_object(window: TextWindow) -> Iterator[Item]:
    """Yield the records of the one list that the object holds. Raises BrokenData where there are several."""
    found = ""
    for name in members(window):
        if window.next() != "[":
            window.value()
            continue
        if found:
            raise BrokenData(
                window.line,
                say(
                    f"这个对象里有几个列表：{found}、{name}",
                    f"this object holds several lists: {found}, {name}",
                ),
                say("每个列表存成一个文件", "keep each list in a file of its own"),
            )
        found = name
        yield from array_items(window)
    if window.next():
        raise BrokenData(
            window.line,
            say("JSON 对象结束之后还有别的内容", "there is more after the end of the JSON object"),
        )


@contextmanager
def open_data_file(
    path: Path, *, plain_text: bool = False, is_known: Callable[[str], bool] = lambda name: False
) -> Iterator[DataFile]:
    """Open a data file and recognise what it is.

    `plain_text`: any text may be a question a line, unless its name says JSON. `is_known` says of a column's
    name whether records have a field of that name: a table is recognised by one.

    Raises CheckpointError where it is not there or cannot be read, DataError for what is no text, is not in
    UTF-8, UTF-16 or UTF-32, has no layout of records, or is over 64 GiB.
    """
    with _opened(path) as file:
        encoding = encoding_of(file.read(BEGINNING_BYTES), path)

        def again() -> IO[bytes]:
            file.seek(0)
            return io.BufferedReader(_Recoded(file, encoding)) if encoding != "utf-8" else file

        try:
            layout = layout_of(again, path, plain_text=plain_text, is_known=is_known)
        except BrokenData as error:
            raise _broken(path, error) from None
        file.seek(0)
        hashed = _Hashed(file)
        stream = io.BufferedReader(hashed)
        whole = stream if encoding == "utf-8" else io.BufferedReader(_Recoded(stream, encoding))
        yield DataFile(path, layout, encoding, whole, hashed, is_known)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = open_regular(path, most=MAX_FILE_BYTES)
    except FileNotFoundError:
        raise _unreadable(path, say("找不到文件", "no such file")) from None
    except TooLargeError as error:
        remedy = say("把它拆成几个文件", "divide it into several files")
        raise DataError(str(error.strerror), remedy, where=str(path)) from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    with file:
        yield file


def _broken(path: Path, error: BrokenData) -> DataError:
    remedy = error.remedy or say("修正这一行后再试", "correct the line and try again")
    return DataError(error.problem, remedy, where=f"{path}:{error.line}")


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        say(f"无法读取数据文件：{reason}", f"cannot read the data file: {reason}"),
        say("检查路径", "check the path"),
        where=str(path),
    )
