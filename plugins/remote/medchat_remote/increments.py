"""Finds what each piece of an answer adds, even if a server resends the complete answer each time."""

from __future__ import annotations

#: A second piece that begins with the first may be coincidence ("哈", "哈哈"), but not at this length.
_SURE = 8


class Increments:
    """Takes the pieces of an answer and returns what is new in each, holding back what is not yet certain.

    Servers send only the new text (nearly all) or the complete text again. The first piece is the same in
    both cases. A second that begins with the first is held back until the third, or the end, decides.
    """

    def __init__(self) -> None:
        self._last = ""
        self._given = ""
        self._held = ""
        self._chain = 1
        self._repeats: bool | None = None

    def feed(self, piece: str) -> str:
        """Return the text that surely is new."""
        if not piece or self._repeats is False:
            return piece
        if not self._last:
            self._last = self._given = piece
            return piece
        if not piece.startswith(self._last) or (piece == self._last and not self._repeats):
            return self._decide(repeats=False) + piece
        self._last, self._held, self._chain = piece, self._held + piece, self._chain + 1
        if self._repeats or (len(piece) >= _SURE and self._is_likely()):
            return self._decide(repeats=True)
        return ""

    def finish(self) -> str:
        """Return what was held back: the answer has ended."""
        return self._decide(repeats=self._is_likely())

    def _is_likely(self) -> bool:
        """Whether pieces that each begin with the previous one are likely cumulative, not one repeated character."""
        enough = len(self._given) > 1 or self._chain > 2
        return enough and len(set(self._last)) > len(set(self._given)) > 0

    def _decide(self, *, repeats: bool) -> str:
        held, self._held = self._held, ""
        if not held:
            self._repeats = repeats if self._repeats is None else self._repeats
            return ""
        self._repeats = repeats
        if not repeats:
            return held
        new = self._last[len(self._given) :]
        self._given = self._last
        return new
