"""The one door through which files are read: a regular file, no larger than its reader says.

    with open_regular(path, most=CONFIG_BYTES) as stream: ...
    content = read_regular(path, CONFIG_BYTES)

A named pipe, a device or a socket would block for ever or never end; a file beyond its limit would fill
the memory. Which files are read, and their limits: docs/files.md. Standard library only, as little as
there is: the program's start reads through it.
"""

from __future__ import annotations

import errno
import io
import os
import stat

from medchat.language import say

TYPE_CHECKING = False  # type checkers know the name; typing itself takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any

#: What has no size of its own: results and runs that the user had written, weights.
UNLIMITED = 2**63
#: A configuration file, of the user or of a project.
SETTINGS_BYTES = 2**20
#: What the system says of itself under /proc and /sys: the longest is the list of a process' mappings.
SYSTEM_BYTES = 16 * 2**20
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)


class NotRegularError(OSError):
    """A path leads to a named pipe, a device, a socket or a folder. `strerror` says which."""


class TooLargeError(OSError):
    """A file is larger than its reader takes. `strerror` says how large it may be."""


def open_regular(path: str | os.PathLike[str], *, most: int) -> io.BufferedReader:
    """Open a file to read its bytes, without ever waiting for it.

    `most` is the largest size in bytes. A file may grow behind its reader's back: read no more than `most`.
    Raises OSError: missing, unreadable; NotRegularError; TooLargeError.
    """
    _require_regular(path, os.stat(path), most)  # noqa: PTH116  (see above: pathlib is slow to import)
    descriptor = os.open(path, _FLAGS)
    try:
        _require_regular(path, os.fstat(descriptor), most)  # it may have been replaced in between
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Raises OSError: missing, unreadable, no regular file (NotRegularError), larger (TooLargeError).
    """
    with open_regular(path, most=most) as stream:
        # What is asked for is reserved at once: no more than the file says that it has.
        size = min(os.fstat(stream.fileno()).st_size, most)
        content = stream.read(size + 1)
        if len(content) > size:  # those under /proc state no size, and any may grow while it is read
            content += stream.read(most - size)
    if len(content) > most:
        raise too_large(path, most)
    return content


def read_json(path: str | os.PathLike[str], most: int) -> Any:
    """Return the JSON value in a file of at most `most` bytes, a byte order mark passed over.

    Raises what `read_regular` raises; ValueError: no UTF-8, no JSON, nested too deeply.
    """
    import json  # not what `medchat --help` waits for

    try:
        return json.loads(read_regular(path, most).decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _require_regular(path: str | os.PathLike[str], found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise NotRegularError(code, _kind(found.st_mode), os.fspath(path))
    if found.st_size > most:
        raise too_large(path, most)


def _kind(mode: int) -> str:
    for is_kind, zh, en in (
        (stat.S_ISDIR, "是目录，不是文件", "a folder, not a file"),
        (stat.S_ISFIFO, "是命名管道，不是普通文件", "a named pipe, not a regular file"),
        (stat.S_ISSOCK, "是套接字，不是普通文件", "a socket, not a regular file"),
    ):
        if is_kind(mode):
            return say(zh, en)
    return say("是设备，不是普通文件", "a device, not a regular file")


def too_large(path: str | os.PathLike[str], most: int) -> TooLargeError:
    """Return the error for a file of more than `most` bytes."""
    size = f"{most / 2**20:g} MiB" if most >= 2**20 else f"{most / 2**10:g} KiB"
    return TooLargeError(
        errno.EFBIG, say(f"文件太大，上限 {size}", f"larger than {size}, the limit"), os.fspath(path)
    )
