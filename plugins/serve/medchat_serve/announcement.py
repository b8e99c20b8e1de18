"""The file that says where a server is and what token it wants, for a program that started it.

The server holds a lock on the file while it runs: whoever can take it knows that what stands there is left over.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medchat.plugin_kit import UsageError, say

#: Whoever looks whether a server runs holds the lock for a moment: it is tried so often, so many seconds apart.
_TRIES, LOCK_PAUSE = 40, 0.05


class Announcement:
    """The open, locked file. It is empty until `publish`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def publish(self, url: str, token: str) -> None:
        """Write where the server is: one object with `url`, `token` and `pid`."""
        content = json.dumps({"url": url, "token": token, "pid": os.getpid()}).encode()
        os.pwrite(self._descriptor, content, 0)


@contextmanager
def announced_in(file: Path) -> Iterator[Announcement]:
    """Hold `file`, which only its owner may read, until the block is left; it is removed then.

    Raises UsageError if another server holds it, or it cannot be written.
    """
    try:
        descriptor = os.open(
            file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError
        os.fchmod(descriptor, 0o600)
        _lock(descriptor)
    except OSError:
        os.close(descriptor)
        raise _unusable(
            file,
            say("不是普通文件，或另一个服务正在使用它", "it is no regular file, or another server uses it"),
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        yield Announcement(descriptor)
    finally:
        file.unlink(missing_ok=True)  # before the lock goes: nobody else's file can be there yet
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(LOCK_PAUSE)


def _unusable(file: Path, why: str) -> UsageError:
    return UsageError(
        say(f"不能使用 --announce 的文件：{why}", f"the file of --announce cannot be used: {why}"),
        say("换一个文件名", "name another file"),
        where=str(file),
    )
