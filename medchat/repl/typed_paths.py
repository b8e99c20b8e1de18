"""Paths after a command, parsed like a shell's words, so that one with spaces can be quoted."""

from __future__ import annotations

import re
import shlex

from medchat.errors import UsageError
from medchat.language import say
from medchat.user_paths import user_path

#: A word; its last quotation mark may still be open.
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*(?:'|$)|"[^"]*(?:"|$))+""")


def paths_in(words: str) -> list[str]:
    """Return the paths that were typed: an unquoted one with spaces if it exists, else one per word.

    Raises UsageError for an unclosed quotation mark.
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
    """Return the last word as it was typed, quotation marks included; "" after a space."""
    found = [*_WORD.finditer(words)]
    return found[-1][0] if found and found[-1].end() == len(words) else ""
