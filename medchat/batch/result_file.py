"""The result file: appended to, repaired after a kill, held by one process.

Lines are appended as answers come, each batch in one write that is on disk before the next begins, so a
kill can tear the last line at most.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medchat.batch.results import ANSWER_FIELDS, Written, file_error, read_results
from medchat.batch.rows import as_line
from medchat.errors import UsageError
from medchat.language import say
from medchat.paths import make_private
from medchat.whole_file import PRIVATE_FILE_MODE, check_output_file, sync

#: `is_held` takes the lock for a moment to look at it: how long to wait before believing it is held for good.
GLANCE_SECONDS = 1.0


def replacement_path(path: Path) -> Path:
    """Return where a run that replaces the result file at `path` begins to write."""
    return path.with_name(f".{path.name}.new")


class ResultFile:
    """A result file open for appending, held by this process alone until it is closed.

    One that replaces earlier answers is begun beside them, until `take_place` is called.
    """

    def __init__(self, path: Path, descriptor: int, written: Written, replaced: int | None = None) -> None:
        self.path = path
        self.written = written
        self._descriptor = descriptor
        self._replaced = replaced
        self._size = written.size

    @classmethod
    def open(
        cls, path: Path, *, overwrite: bool = False, fields: Collection[str] = ANSWER_FIELDS
    ) -> ResultFile:
        """Open or create the file (mode 0600), repair its end, and hold it. `fields` as for `read_results`.

        With `overwrite` what the file holds is not looked at, and stays until `take_place`.
        Raises UsageError if another process holds it, DataError if it is not a result file.
        """
        with _explained(path):
            check_output_file(path, {})
            make_private(path.parent)
            # The new file first: whoever finds the old one held finds that it is being replaced, too.
            beside = _held(replacement_path(path), path) if overwrite else None
            try:
                descriptor = _held(path)
            except BaseException:
                _discard(beside, path)
                raise
            if beside is not None and os.fstat(descriptor).st_size:
                os.ftruncate(beside, 0)
                return cls(path, beside, Written(), descriptor)
            _discard(beside, path)
        try:
            opened = cls(path, descriptor, read_results(path, fields))
            with _explained(path):
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

    def take_place(self) -> None:
        """Put this file in place of the one that it replaces, if it replaces one. Raises MedchatError."""
        if self._replaced is None:
            return
        with _explained(self.path):
            replacement_path(self.path).replace(self.path)
        os.close(self._replaced)
        self._replaced = None
        with suppress(OSError):  # the lines are there: some file systems cannot sync a folder
            sync(self.path.parent)

    @property
    def replaces(self) -> bool:
        """Whether what an earlier run wrote still stands there, to be replaced."""
        return self._replaced is not None

    @property
    def is_empty(self) -> bool:
        """Whether it holds no line."""
        return self._size == 0

    @property
    def is_there(self) -> bool:
        """Whether the file still stands where it was opened."""
        return is_at(self.path, self._descriptor)

    def close(self) -> None:
        """Let the file go; what was to be replaced and was not stays as it is."""
        if self._replaced is not None:
            os.close(self._replaced)
            _discard(self._descriptor, self.path)
        else:
            os.close(self._descriptor)

    def _repair(self) -> None:
        """Cut off what a kill tore, and end the last line."""
        ended = sum(len(line.raw) for line in self.written.lines)
        os.ftruncate(self._descriptor, self.written.size)
        if ended > self.written.size:
            os.pwrite(self._descriptor, b"\n", self.written.size)
        self._size = ended


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise file_error(path, error) from error


def _discard(beside: int | None, path: Path) -> None:
    """Remove the replacement of `path` that this process holds, if it holds one."""
    if beside is not None:
        replacement_path(path).unlink(missing_ok=True)
        os.close(beside)


def _held(path: Path, output: Path | None = None) -> int:
    """Return a descriptor of the file at `path` (mode 0600), locked; made where there is none.

    Raises UsageError if another process has it, naming `output`.
    """
    patience = time.monotonic() + GLANCE_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(path, descriptor):
                with suppress(PermissionError):  # someone else's file that we may write: theirs to decide
                    os.fchmod(descriptor, PRIVATE_FILE_MODE)
                return descriptor
        except BlockingIOError:
            if time.monotonic() > patience:
                os.close(descriptor)
                raise in_use(output or path) from None
            time.sleep(GLANCE_SECONDS / 20)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # not ours yet, or removed by somebody between opening and locking it


def in_use(path: Path) -> UsageError:
    """Return what to say where another process is writing."""
    return UsageError(
        say("另一个 medchat 正在写这个文件", "another medchat is writing this file"),
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
