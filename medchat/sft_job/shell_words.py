"""Commands for people to copy: quoted for a shell, and without terminal escape sequences."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from medchat.sanitize import sanitize


def joined(words: Iterable[str]) -> str:
    """Return a command on one line."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    r"""Return a word quoted for a shell.

    A word with control characters or line ends is written by its bytes: `$'a\x1bb'`.
    """
    if sanitize(word) == word and not {"\n", "\t"} & set(word):
        return shlex.quote(word)
    shown = (chr(byte) if _plain(byte) else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return "$'" + "".join(shown) + "'"


def _plain(byte: int) -> bool:
    return 0x20 <= byte < 0x7F and chr(byte) not in "'\\"
