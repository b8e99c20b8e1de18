"""Separates reasoning from the answer of a model that writes messages in channels, such as gpt-oss.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Servers that do not parse these marks pass them on as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

#: The beginnings of an answer in channels; the first marks may be part of the prompt.
BEGINNINGS = (
    "<|channel|>",
    "<|start|>assistant",
    *(f"{name}<|message|>" for name in ("analysis", "commentary", "final")),
)
_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?:assistant)?\s*(?:<\|channel\|>)?\s*([a-z]*)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
    re.ASCII | re.IGNORECASE,
)
#: The largest length of a header.
_LONGEST_HEADER = 200
#: An incomplete header.
_ROLE = "assistant<"
#: The end of a message: its end mark, or the beginning of the next one.
_END = re.compile(r"<\|(?:end|return|call)\|>|(?=<\|(?:start|channel)\|>)", re.ASCII | re.IGNORECASE)
_MARKS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
#: Channels for the user; all others are reasoning.
_ANSWERS = ("", "final")
_SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True, slots=True)
class SplitText:
    """The result of one piece of text. `restarts`: the answer so far was reasoning."""

    answer: str = ""
    reasoning: str = ""
    restarts: bool = False


class ChannelSplitter:
    """A streaming splitter of an answer in channels, which may be cut anywhere; `finish` returns what was held back."""

    def __init__(self) -> None:
        self._held = ""
        self._in_header = True
        self._is_answer = True

    def feed(self, text: str) -> SplitText:
        """Add text and return what has become certain."""
        self._held += text
        answer, reasoning = "", ""
        while True:
            text_from = self._past_header() if self._in_header else 0
            if text_from < 0:
                return SplitText(answer, reasoning)
            end = _END.search(self._held, text_from)
            length = end.start() if end else len(self._held) - begun(self._held, _MARKS)
            said, self._held = self._held[:length], self._held[end.end() if end else length :]
            if self._is_answer:
                answer += said
            else:
                reasoning += said
            if not end:
                return SplitText(answer, reasoning)
            self._in_header = True

    def finish(self) -> SplitText:
        """Return what was held back: a truncated mark is not part of the answer."""
        held, self._held = self._held, ""
        if self._in_header:
            return SplitText(reasoning=held.strip())
        return SplitText(answer=held) if self._is_answer else SplitText(reasoning=held)

    def _past_header(self) -> int:
        """Skip the header at the beginning of the held text; return how much of the rest surely is not a mark.

        -1 if it is not certain that a message follows.
        """
        if header := _HEADER.match(self._held[:_LONGEST_HEADER]):
            self._held = self._held[header.end() :]
            self._is_answer = header[1].lower() in _ANSWERS
            self._in_header = False
            return 0
        start = in_small_letters(self._held[:_LONGEST_HEADER]).lstrip()
        may_become_one = any(mark.startswith(start[: len(mark)]) for mark in (*BEGINNINGS, _ROLE))
        if len(start) < _LONGEST_HEADER and (start[:1] == "<" or may_become_one):
            return -1
        self._is_answer, self._in_header = True, False  # no header: the server dropped the marks
        return 1


def in_small_letters(text: str) -> str:
    """Return `text` with ASCII letters in lower case, so that all offsets stay the same."""
    return text.translate(_SMALL)


def begun(text: str, tags: tuple[str, ...]) -> int:
    """Return how many characters at the end of `text` may be the beginning of one of `tags`, ignoring case."""
    longest = min(max(map(len, tags)) - 1, len(text))
    end = in_small_letters(text[len(text) - longest :])
    return next(
        (length for length in range(longest, 0, -1) if any(tag.startswith(end[-length:]) for tag in tags)), 0
    )
