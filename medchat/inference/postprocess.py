"""Full-width punctuation and markers in an answer, at once or as it streams.

ChatGLM's original chat function does this after decoding, and Huozi's took it over. The rules undo a
tokenizer's folding of full-width punctuation to ASCII next to Chinese characters. See
docs/specs/models.md, "Answer cleanup". No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from medchat.inference.detokenizer import REPLACEMENT

_FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_CHINESE = "[\u4e00-\u9fff]"
# The original makes ten passes, one a mark and side. A mark is never itself a Chinese character, so
# whether one is replaced depends on its two neighbours alone and one pass does the same.
_FOLDED = re.compile(f"(?<={_CHINESE})[,!:;?]|[,!:;?](?={_CHINESE})")
_OPEN_MARK = re.compile(f"(?<!{_CHINESE})[,!:;?]$")
_NOTHING: Mapping[str, str] = MappingProxyType({})


def clean_answer(text: str, *, replaced: Mapping[str, str] = _NOTHING, full_width: bool = True) -> str:
    """Return the answer with `replaced` put in place, stripped and, if `full_width`, its punctuation widened.

    What is stripped is white space, and at the end the bytes of a character that was cut off (U+FFFD).
    """
    # The originals strip first, which leaves the white space beside a marker that is then removed.
    text = _without_tail(_replace(text, replaced)).lstrip()
    return _widen(text) if full_width else text


class StreamingCleanup:
    """`clean_answer` for text that comes in pieces: what it has returned never changes.

    It keeps back trailing white space and U+FFFD (both may be stripped), a beginning of a marker, and a final
    mark whose width the next character decides. No marker may hold white space or another one's beginning.
    """

    def __init__(self, *, replaced: Mapping[str, str] = _NOTHING, full_width: bool = True) -> None:
        self._replaced = replaced
        self._full_width = full_width
        starts = {marker[:length] for marker in replaced for length in range(1, len(marker))}
        self._starts = sorted(starts, key=len, reverse=True)
        self._begin()

    def _begin(self) -> None:
        self._pending = ""
        self._last = ""  # the last character returned: the left neighbour of what comes next

    def feed(self, text: str) -> str:
        """Take the next piece and return what is certain of the answer so far."""
        self._pending = _replace(self._pending + text, self._replaced)
        if not self._last:
            self._pending = self._pending.lstrip()
        return self._release(len(self._pending) - self._held())

    def finish(self) -> str:
        """Return the rest of the answer, without white space or half a character at its end."""
        rest = self._release(len(_without_tail(self._pending)))
        self._begin()
        return rest

    def take_back(self) -> str:
        """Return what was kept back, unchanged, and begin a new answer: what came was not one."""
        pending = self._pending
        self._begin()
        return pending

    def _held(self) -> int:
        """Return how many pending characters a later one can still change."""
        pending = self._pending
        blank = len(pending) - len(_without_tail(pending))
        if blank:
            # Whatever is before white space has its right neighbour.
            return blank
        for start in self._starts:
            if pending.endswith(start):
                return len(start) + self._open_mark(pending.removesuffix(start))
        return self._open_mark(pending)

    def _open_mark(self, pending: str) -> int:
        return 1 if self._full_width and _OPEN_MARK.search(self._last + pending) else 0

    def _release(self, count: int) -> str:
        certain, self._pending = self._pending[:count], self._pending[count:]
        if not certain:
            return ""
        if self._full_width:
            certain = _widen(self._last + certain)[len(self._last) :]
        self._last = certain[-1]
        return certain


class StrippedAnswer(StreamingCleanup):
    """An answer without white space at its ends, as the originals' scripts strip it, and else as it is."""

    def __init__(self) -> None:
        super().__init__(full_width=False)


def _without_tail(text: str) -> str:
    """Return `text` without white space and U+FFFD, the bytes of a character that was cut off, at its end."""
    while (shorter := text.rstrip().rstrip(REPLACEMENT)) != text:
        text = shorter
    return text


def _replace(text: str, replaced: Mapping[str, str]) -> str:
    for marker, words in replaced.items():
        text = text.replace(marker, words)
    return text


def _widen(text: str) -> str:
    return _FOLDED.sub(lambda mark: _FULL_WIDTH[mark[0]], text)
