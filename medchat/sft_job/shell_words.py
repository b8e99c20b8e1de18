"""Commands for people to copy: a shell reads the very words, and a terminal obeys nothing in them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from medchat.sanitize import sanitize


def joined(words: Iterable[str]) -> str:
    """Return a command on one line."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    r"""Return a word as it is typed in a shell.

    One that a terminal would obey, or that is not on one line, is written by its bytes: `$'a\x1bb'`.
    """
    if sanitize(word) == word and not {"\n", "\t"} & set(word):
        return shlex.quote(word)
    shown = (chr(byte) if _plain(byte) else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return "$'" + "".join(shown) + "'"


def _plain(byte: int) -> bool:
    return 0x20 <= byte < 0x7F and chr(byte) not in "'\\"
