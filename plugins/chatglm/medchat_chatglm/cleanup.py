"""What the original chat function does to an answer after decoding, at once or as it streams.

Specification: chatglm-6b section 7. The v1.1 rules undo the tokenizer's folding of full-width
punctuation to ASCII next to Chinese characters; the v0 rules do not.
"""

from __future__ import annotations

import re

#: The placeholder the training data had for its date, and what the original puts there.
DATE_MARKER = "[[训练时间]]"
DATE_TEXT = "2023年"

_FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_CHINESE = "[\u4e00-\u9fff]"
# The original makes ten passes, one a mark and side. A mark is never itself a Chinese character, so
# whether one is replaced depends on its two neighbours alone and one pass does the same.
_FOLDED = re.compile(f"(?<={_CHINESE})[,!:;?]|[,!:;?](?={_CHINESE})")
_OPEN_MARK = re.compile(f"(?<!{_CHINESE})[,!:;?]$")
_MARKER_STARTS = tuple(DATE_MARKER[:length] for length in range(len(DATE_MARKER) - 1, 0, -1))


def process_response(text: str, *, full_width: bool) -> str:
    """Return the answer as the original shows it. `full_width` is True for v1.1 and False for v0/Med."""
    text = text.strip().replace(DATE_MARKER, DATE_TEXT)
    return _widen(text) if full_width else text


class StreamingResponse:
    """`process_response` for text that comes in pieces: what it has returned never changes.

    It keeps back trailing white space (it may be stripped), a beginning of the date marker, and a
    final mark whose width the next character decides.
    """

    def __init__(self, *, full_width: bool) -> None:
        self._full_width = full_width
        self._pending = ""
        self._last = ""  # the last character returned: the left neighbour of what comes next

    def feed(self, text: str) -> str:
        """Take the next piece and return what is certain of the answer so far."""
        self._pending += text
        if not self._last:
            self._pending = self._pending.lstrip()
        return self._release(len(self._pending) - self._held())

    def finish(self) -> str:
        """Return the rest of the answer, without the white space at its end."""
        self._pending = self._pending.rstrip()
        rest = self._release(len(self._pending))
        self._last = ""
        return rest

    def _held(self) -> int:
        """Return how many pending characters a later one can still change."""
        pending = self._pending
        blank = len(pending) - len(pending.rstrip())
        if blank:
            return blank
        for start in _MARKER_STARTS:
            if pending.endswith(start):
                return len(start)
        return 1 if self._full_width and _OPEN_MARK.search(self._last + pending) else 0

    def _release(self, count: int) -> str:
        certain = self._pending[:count].replace(DATE_MARKER, DATE_TEXT)
        self._pending = self._pending[count:]
        if not certain:
            return ""
        if self._full_width:
            certain = _widen(self._last + certain)[len(self._last) :]
        self._last = certain[-1]
        return certain


def _widen(text: str) -> str:
    return _FOLDED.sub(lambda mark: _FULL_WIDTH[mark[0]], text)
