"""Files and folders that are written whole: beside their place, then renamed. Standard library only."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from medchat.errors import UsageError
from medchat.language import say

#: Files that hold a person's words are for their owner alone.
PRIVATE_FILE_MODE = 0o600
#: Others are as readable as the umask makes them.
_READABLE_MODE, _FOLDER_MODE, _PRIVATE_FOLDER_MODE = 0o666, 0o777, 0o700
#: Seconds after which a folder that is written in is locked for certain.
_LOCKED_AFTER = 60


def write_whole_file(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Put `content` in place of the file at `path`; after any crash it holds the old or all of the new.

    Text is written as UTF-8, what has no UTF-8 form (a lone surrogate) as an escape. `private` gives mode
    0600, whatever an older file there had. Other names of the older file (hard links) keep its content.
    Raises OSError, and then nothing has changed.
    """
    beside = _beside(path)
    descriptor = os.open(
        beside,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
        PRIVATE_FILE_MODE if private else _READABLE_MODE,
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the new content is there: some file systems cannot sync a folder
        sync(path.parent)


@contextmanager
def staged_output(
    output: Path, *, folder: bool, replace: bool = False, private: bool = False
) -> Iterator[Path]:
    """Yield a path to write a file, or an empty folder, at; at the end it takes the place of `output`.

    What stands at `output` is replaced, or, without `replace`, left alone: anything but an empty folder is
    an error then. After an error, or when the program is killed, `output` is as it was; what killed programs
    left beside it is removed. Files are as readable as the umask makes them; `private` gives a folder mode
    0700 and leaves its files' modes alone. Raises OSError.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(output)
    stage = _beside(output)
    stage.mkdir(_PRIVATE_FOLDER_MODE)
    lock = os.open(stage, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks: nothing is ever removed there
            fcntl.flock(lock, fcntl.LOCK_EX)
        staged = stage / output.name
        if folder:
            staged.mkdir(_PRIVATE_FOLDER_MODE if private else _FOLDER_MODE)
        yield staged
        _write_through(staged, readable=not private)
        _move(staged, output, replace=replace)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(lock)


def _beside(path: Path) -> Path:
    """Return a new name in the same folder. A name may be as long as the file system allows: a part will do."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.partial")


def _remove_abandoned(output: Path) -> None:
    """Remove the folders in which programs that were killed wrote `output`: those that no process has locked."""
    for stage in output.parent.glob(f".{glob.escape(output.name[:40])}.????????.partial"):
        with suppress(OSError):
            # One made this moment may not be locked yet.
            if (
                stage.is_symlink()
                or not stage.is_dir()
                or time.time() - stage.stat().st_mtime < _LOCKED_AFTER
            ):
                continue
            lock = os.open(stage, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stage, ignore_errors=True)
            finally:
                os.close(lock)


def _write_through(staged: Path, *, readable: bool) -> None:
    """Wait until all files are on the disk; some writers make them for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in staged.rglob("*") if staged.is_dir() else (staged,):
        if file.is_file():
            if readable:
                file.chmod(_READABLE_MODE & ~mask)
            sync(file)


def _move(staged: Path, output: Path, *, replace: bool) -> None:
    empty = output.is_dir() and not output.is_symlink() and not any(output.iterdir())
    if os.path.lexists(output) and not replace and not (empty and staged.is_dir()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(output))
    if not os.path.lexists(output) or not (staged.is_dir() or output.is_dir()):
        staged.replace(output)
        return
    # A folder takes no other's place in one step: between these two what was there has another name.
    before = output.with_name(f"{staged.parent.name}.before")
    output.rename(before)
    try:
        staged.rename(output)
    except BaseException:
        before.rename(output)
        raise
    if before.is_dir() and not before.is_symlink():
        shutil.rmtree(before, ignore_errors=True)
    else:
        before.unlink()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def same_file(path: Path, other: Path) -> bool:
    """Whether two names lead to one file: through links, hard or symbolic, or a file system that folds case."""
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return False


def check_output_file(output: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse to write over what is read, or over what is no ordinary file (a device, a FIFO, a folder).

    `inputs` are paths by what the user calls them (`--data`); one that is not there does not count.
    Raises UsageError.
    """
    for name, source in inputs.items():
        if same_file(output, source):
            raise UsageError(
                say(f"{name} 和 --output 是同一个文件", f"{name} and --output are the same file"),
                say("换一个 --output", "use another --output"),
                where=str(output),
            )
    if os.path.lexists(output) and not output.is_file():
        raise UsageError(
            say("--output 不是普通文件", "--output is not an ordinary file"),
            say("换一个 --output", "use another --output"),
            where=str(output),
        )
