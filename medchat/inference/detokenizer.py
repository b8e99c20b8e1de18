"""Text from tokens as they come: never half a character, never a letter taken back.

Knows no tokenizer, only a function from ids to text. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
#: A UTF-8 character has at most four bytes, so at most three of an unfinished one can have come.
LONGEST_UNFINISHED = 3


def unfinished_characters(text: str) -> int:
    """Return how many characters at the end of `text` may be the start of a longer one.

    Decoders show the bytes of an unfinished character as U+FFFD, one a byte or one for all of them.
    """
    tail = text[-LONGEST_UNFINISHED:]
    return len(tail) - len(tail.rstrip(REPLACEMENT))


class StreamText:
    """Decodes a growing list of ids, giving each piece of text once it can no longer change.

    The pieces joined are `decode` of all ids, but for a last character that never became whole. What `decode`
    must promise: one more id changes nothing of the text before it but the last `unfinished(text)` characters.
    It may treat the very beginning specially (SentencePiece drops leading spaces).

    Only the newest ids are decoded again, behind an anchor: the last ids before them that had settled and
    have text of their own, so that what follows is never mistaken for the beginning. The cost of a long
    answer therefore grows with its length, not its square.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        unfinished: Callable[[str], int] = unfinished_characters,
    ) -> None:
        self._decode = decode
        self._unfinished = unfinished
        self._anchor: list[int] = []
        self._anchor_length = 0  # characters of the anchor's own text, all of them given
        self._newest: list[int] = []
        self._given = 0  # characters given of the text of anchor and newest together

    def feed(self, token: int) -> str:
        """Add one id and return the text that has become certain ("" when none has)."""
        self._newest.append(token)
        text = self._decode(self._anchor + self._newest)
        held = self._unfinished(text)
        piece = text[self._given : len(text) - held]
        self._given += len(piece)
        if held == 0:
            self._settle()
        return piece

    def finish(self) -> str:
        """Return what was held back, bytes of an unfinished character left out; afterwards the object is as new."""
        rest = self._decode(self._anchor + self._newest)[self._given :]
        self._anchor, self._newest, self._anchor_length, self._given = [], [], 0, 0
        return rest.rstrip(REPLACEMENT)

    def _settle(self) -> None:
        """All text so far has been given: forget the ids that later text does not depend on."""
        alone = len(self._decode(self._newest))
        if alone:
            self._anchor, self._anchor_length = self._newest, alone
        if self._anchor:
            self._newest, self._given = [], self._anchor_length


# Texts that end an answer, found in a stream that may break them anywhere. No torch here.


class StopText:
    """Watches a stream for texts that end the answer, holding back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Return the text that cannot belong to a stop text. After `found` is set, nothing more."""
        if self.found:
            return ""
        self._held += text
        starts = [start for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if starts:
            self.found = True
            return self._release(min(starts))
        return self._release(len(self._held) - self._possible_start())

    def finish(self) -> str:
        """Return what was held back: it did not become a stop text after all."""
        return "" if self.found else self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _possible_start(self) -> int:
        """Return the length of the longest end of the held text that begins a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
