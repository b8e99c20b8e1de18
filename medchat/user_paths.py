"""From what a user types or writes in a file to a path that the system takes. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

from medchat.errors import UsageError
from medchat.language import say

#: What Linux and macOS take, in bytes.
LONGEST_NAME, LONGEST_PATH = 255, 4095


def user_path(text: str) -> Path:
    """Return the path that a user has given, `~` replaced. Raises UsageError for what can be no file's name.

    A `~name` of no user stays as it is, as in a shell.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        path = Path(text)
    try:
        parts = [os.fsencode(part) for part in path.parts]
    except UnicodeEncodeError:  # a lone surrogate
        parts = [b"\0"]
    if any(b"\0" in part for part in parts):
        raise UsageError(
            say("路径里有不能用于文件名的字符", "the path holds what no file's name can hold"),
            where=text[:80],
        )
    if max(map(len, parts), default=0) > LONGEST_NAME or sum(map(len, parts)) + len(parts) > LONGEST_PATH:
        raise UsageError(
            say(
                f"路径太长：文件名最多 {LONGEST_NAME} 字节，整个路径最多 {LONGEST_PATH} 字节",
                f"the path is too long: a name has at most {LONGEST_NAME} bytes, a path {LONGEST_PATH}",
            ),
            where=text[:80] + "…",
        )
    return path
