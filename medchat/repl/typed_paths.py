"""Paths behind a command: read as a shell reads words, so that one with blanks can be put into quotation marks."""

from __future__ import annotations

import re
import shlex

from medchat.errors import UsageError
from medchat.language import say
from medchat.user_paths import user_path

#: A word; its last quotation may still be open.
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*(?:'|$)|"[^"]*(?:"|$))+""")


def paths_in(words: str) -> list[str]:
    """Return the paths that were typed: one with blanks in it as it stands if it exists, else each word is one.

    Raises UsageError for a quotation without an end.
    """
    if user_path(words).exists():
        return [words]
    try:
        return shlex.split(words)
    except ValueError:
        raise UsageError(
            say("引号没有成对", "a quotation mark is not closed"),
            say(
                "路径中有空格时，请用引号把整个路径括起来",
                "put a path that contains spaces in quotation marks",
            ),
        ) from None


def path_and_rest(words: str) -> tuple[str, str]:
    """Return the path that `words` begin with, and what follows it as it was typed. Raises as `paths_in`."""
    found = _WORD.match(words)
    if found is None or user_path(words).exists():
        return words, ""
    return "".join(paths_in(found[0])), words[found.end() :].strip()


def last_word(words: str) -> str:
    """Return the last word as it was typed, quotation marks included; "" behind a blank."""
    found = [*_WORD.finditer(words)]
    return found[-1][0] if found and found[-1].end() == len(words) else ""
