"""The result file: appended to, repaired after a kill, put in order at the end.

Lines are appended as answers come, each batch in one write that is on disk before the next begins, so a
kill can tear the last line at most. Knows lines and where they lie; what they say is in `rows`.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.api import Finish
from medchat.batch.rows import as_line
from medchat.errors import DataError, MedchatError, UsageError
from medchat.language import say
from medchat.paths import PRIVATE_FILE_MODE, make_private

#: `is_held` takes the lock for a moment to look at it: how long to wait before believing it is held for good.
GLANCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a result file. `raw` is the line as it stands there, its newline included."""

    raw: bytes
    row: Mapping[str, Any]
    number: int

    @property
    def index(self) -> int:
        """Which question it answers."""
        return int(self.row["index"])

    @property
    def answered(self) -> bool:
        """Whether it holds an answer, and not a refusal or a failure."""
        return bool(self.row.get("finish") != Finish.ERROR)


@dataclass(frozen=True, slots=True)
class Written:
    """What a result file holds. `size` counts the bytes of whole lines, `torn` those after them."""

    lines: tuple[Line, ...] = ()
    size: int = 0
    torn: int = 0


def read_results(path: Path) -> Written:
    """Read a result file; one that is missing is empty.

    The last line may be torn. Raises DataError, naming the line, for anything else that is not a line
    of a result file: then it may be somebody else's file, and must be left alone.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Written()
    except OSError as error:
        raise file_error(path, error) from error
    lines: list[Line] = []
    size = 0
    pieces = raw.split(b"\n")
    last = len(pieces) - 1 if pieces[-1] else len(pieces) - 2
    for position, piece in enumerate(pieces[: last + 1]):
        row = _row(piece)
        if row is not None:
            lines.append(Line(piece + b"\n", row, position + 1))
            size += len(piece) + 1
        elif position == last and _is_torn(piece):
            break
        else:
            raise DataError(
                say("这一行不是 medchat infer 的结果", "this line is no result of medchat infer"),
                say("换一个 --output，或删掉这一行", "use another --output, or delete the line"),
                where=f"{path}:{position + 1}",
            )
    return Written(tuple(lines), min(size, len(raw)), max(0, len(raw) - size))


def _value(piece: bytes) -> Any:
    """Return what the JSON in `piece` says, None if it is not JSON."""
    try:
        return json.loads(piece)
    except (ValueError, RecursionError):
        return None


def _row(piece: bytes) -> Mapping[str, Any] | None:
    row = _value(piece)
    if not isinstance(row, dict) or type(row.get("index")) is not int:
        return None
    texts = all(isinstance(row.get(name), str) for name in ("question", "answer", "finish"))
    return row if texts else None


def _is_torn(piece: bytes) -> bool:
    """Whether the piece may be the beginning of a line of ours. After a power cut its end may be zeros."""
    return piece.strip(b"\0")[:1] in (b"", b"{") and _value(piece) is None


def file_error(path: Path, error: OSError) -> MedchatError:
    """Return what to say of a file that cannot be read or written."""
    reason = error.strerror or str(error)
    return MedchatError(
        say(f"结果文件读写失败：{reason}", f"the result file cannot be read or written: {reason}"),
        say(
            "修正后用 --resume 接着运行，已写入的回答都在",
            "put that right and go on with --resume; every answer written so far is kept",
        ),
        where=str(path),
    )


class ResultFile:
    """A result file open for appending, held by this process alone until it is closed."""

    def __init__(self, path: Path, descriptor: int, written: Written) -> None:
        self.path = path
        self.written = written
        self._descriptor = descriptor
        self._size = written.size

    @classmethod
    def open(cls, path: Path, *, afresh: bool = False) -> ResultFile:
        """Open or create the file (mode 0600), repair its end, and hold it; `afresh` empties it first.

        Raises UsageError if another process holds it, DataError if it is not a result file.
        """
        if path.exists() and not path.is_file():
            raise UsageError(
                say("--output 不是普通文件", "--output is not an ordinary file"),
                "--output answers.jsonl",
                where=str(path),
            )
        if not path.parent.exists():
            make_private(path.parent)
        try:
            descriptor = _held(path)
        except OSError as error:
            raise file_error(path, error) from error
        try:
            if afresh:
                os.ftruncate(descriptor, 0)
            written = read_results(path)
            opened = cls(path, descriptor, written)
            opened._repair()
        except BaseException:
            os.close(descriptor)
            raise
        return opened

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add `rows`, safely stored before this returns. Raises MedchatError; then nothing of them is kept."""
        data = b"".join(map(as_line, rows))
        try:
            if os.pwrite(self._descriptor, data, self._size) != len(data):
                raise OSError(28, os.strerror(28))  # a short write: the disk is full
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise file_error(self.path, error) from error
        self._size += len(data)

    @property
    def is_empty(self) -> bool:
        """Whether it holds no line."""
        return self._size == 0

    @property
    def is_there(self) -> bool:
        """Whether the file still stands where it was opened."""
        return is_at(self.path, self._descriptor)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)

    def _repair(self) -> None:
        """Cut off what a kill tore, and end the last line."""
        ended = sum(len(line.raw) for line in self.written.lines)
        os.ftruncate(self._descriptor, self.written.size)
        if ended > self.written.size:
            os.pwrite(self._descriptor, b"\n", self.written.size)
        self._size = ended


def _held(path: Path) -> int:
    """Return a descriptor of the file at `path`, locked. Raises UsageError if another process has it."""
    patience = time.monotonic() + GLANCE_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > patience:
                os.close(descriptor)
                raise in_use(path) from None
            time.sleep(GLANCE_SECONDS / 20)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # not ours yet, or removed by somebody between opening and locking it


def in_use(path: Path) -> UsageError:
    """Return what to say where another process is writing."""
    return UsageError(
        say("另一个 medchat infer 正在写这个文件", "another medchat infer is writing this file"),
        say("等它结束，或换一个 --output", "wait until it has ended, or use another --output"),
        where=str(path),
    )


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        there, ours = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def is_held(path: Path) -> bool:
    """Whether a process that is alive has the result file open for appending."""
    with _locked(path) as ours:
        return ours is False


def remove_unless_held(path: Path) -> bool:
    """Remove the result file, unless a process that is alive has it open. Return whether one has.

    It is locked meanwhile, so that nobody can begin to write what is being removed.
    """
    with _locked(path) as ours:
        if ours:
            path.unlink(missing_ok=True)
        return ours is False


@contextmanager
def _locked(path: Path) -> Iterator[bool | None]:
    """Lock the file for a moment: True if that went well, False if another has it, None if it is not there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise file_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield is_at(path, descriptor) or None
    finally:
        os.close(descriptor)


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Return the last line of each question, in the questions' order."""
    latest = {line.index: line for line in lines}
    return [latest[index] for index in sorted(latest)]


def write_whole(path: Path, lines: Sequence[Line]) -> None:
    """Put `lines` in the place of the file at `path`, unless it holds just them. Raises MedchatError."""
    replace_file(path, b"".join(line.raw for line in lines))


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file at `path` in one step, keeping its mode; a new one is private.

    A file that holds just that is left alone. Raises MedchatError, and then nothing has changed.
    """
    try:
        if path.exists() and path.read_bytes() == data:
            return
        make_private(path.parent)
        mode = path.stat().st_mode & 0o777 if path.exists() else PRIVATE_FILE_MODE
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise file_error(path, error) from error
