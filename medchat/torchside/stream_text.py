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

    The pieces joined are `decode` of all ids. What `decode` must promise: one more id changes nothing of
    the text before it but the last `unfinished(text)` characters. It may treat the very beginning
    specially (SentencePiece drops leading spaces).

    Only a window of the last ids is decoded again: it starts at an id before which everything had
    settled and, together with the ids already shown, has text of its own, so that it is never mistaken
    for the beginning. The cost of a long answer therefore grows with its length, not its square.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        unfinished: Callable[[str], int] = unfinished_characters,
    ) -> None:
        self._decode = decode
        self._unfinished = unfinished
        self._window: list[int] = []
        self._settled = 0  # ids of the window whose text had all been given at the last clean point
        self._settled_length = 0  # and the length of the window's text then
        self._given = 0  # characters of the window's text already given

    def feed(self, token: int) -> str:
        """Add one id and return the text that has become certain ("" when none has)."""
        self._window.append(token)
        text = self._decode(self._window)
        held = self._unfinished(text)
        piece = text[self._given : len(text) - held]
        self._given += len(piece)
        if held == 0:
            self._slide(text)
        return piece

    def finish(self) -> str:
        """Return what was held back, as it is; afterwards the object is as new."""
        rest = self._decode(self._window)[self._given :] if self._window else ""
        self._window, self._settled, self._settled_length, self._given = [], 0, 0, 0
        return rest

    def _slide(self, text: str) -> None:
        """Everything has been given: forget the ids that later text no longer depends on."""
        newest = self._window[self._settled :]
        alone = self._decode(newest)
        if alone:
            self._window, text = newest, alone
        elif text and len(text) == self._settled_length:
            # Ids without text (control pieces) after the beginning: nothing depends on them.
            del self._window[self._settled :]
        self._settled = len(self._window)
        self._settled_length = self._given = len(text)
