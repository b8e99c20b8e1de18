"""Files and folders that are written whole: beside their place, then renamed. Standard library only."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from medchat.errors import MedchatError, UsageError
from medchat.language import say

#: Files that hold a person's words are for their owner alone.
PRIVATE_FILE_MODE = 0o600
#: Others are as readable as the umask makes them.
_READABLE_MODE = 0o666


def write_whole_file(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Put `content` in place of the file at `path`; after any crash it holds the old or all of the new.

    Text is written as UTF-8, what has no UTF-8 form (a lone surrogate) as an escape. `private` gives mode
    0600, whatever an older file there had. Other names of the older file (hard links) keep its content.
    Raises OSError, and then nothing has changed.
    """
    # A name may be as long as the file system allows: of a long one a part will do.
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.partial")
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
def whole_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder beside `path`, which gets that name at the end: `path` is whole, or is not there.

    `mode` is what the umask does not take away. An empty folder at `path` is replaced. Raises OSError.
    """
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.partial")
    beside.mkdir(mode)
    try:
        yield beside
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


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


def output_error(output: Path, error: OSError, what: str = "") -> MedchatError:
    """Return the error for a file or folder of `--output` that cannot be written; `what` says so otherwise."""
    reason = error.strerror or str(error)
    said = what or say("无法写入", "cannot be written")
    return MedchatError(
        say(f"{said}：{reason}", f"{said}: {reason}"),
        say(
            "腾出空间、修正权限，或换一个 --output", "make room, fix the permissions, or use another --output"
        ),
        where=str(output),
    )
