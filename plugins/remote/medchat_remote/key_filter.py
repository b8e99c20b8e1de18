"""Removes the key from an answer: a key that a server repeats would be shown, saved and sent again."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from medchat_remote.redaction import KEY_MARK, base64_parts, letters_of

#: A shorter one is a placeholder ("EMPTY", "ollama"), which an answer may contain.
_SHORTEST = 8


class KeyFilter:
    """A streaming filter that replaces the key with `***`, however it is split or escaped.

    Only a possible beginning of the key is held back. Other characters between the key's letters do not hide
    it. `finish` returns the held-back text if it was not the key.
    """

    def __init__(self, key: str) -> None:
        """`key` is the secret, "" for none: then text passes unchanged."""
        folded = (letters_of(form)[0] for form in _forms(key)) if len(letters_of(key)[0]) >= _SHORTEST else ()
        self._patterns = tuple({pattern for pattern in folded if len(pattern) >= _SHORTEST})
        self._longest = max(map(len, self._patterns), default=0)
        self._held = ""

    def feed(self, text: str) -> str:
        """Add text and return the part that surely is not part of the key."""
        if not self._patterns:
            return text
        self._held += text
        released = ""
        while True:
            letters, places = letters_of(self._held)
            found = [(start, p) for p in self._patterns if (start := letters.find(p)) >= 0]
            if not found:
                break
            start, pattern = min(found)
            released += self._held[: places[start]] + KEY_MARK
            self._held = self._held[places[start + len(pattern) - 1] + 1 :]
        begun = self._begun(letters)
        end = places[-begun] if begun else len(self._held)
        released, self._held = released + self._held[:end], self._held[end:]
        return released

    def finish(self) -> str:
        """Return what was held back at the end of the text."""
        text, self._held = self._held, ""
        return text

    def _begun(self, letters: str) -> int:
        """Return how many letters at the end may be the beginning of the key."""
        for length in range(min(self._longest - 1, len(letters)), 0, -1):
            if any(pattern.startswith(letters[-length:]) for pattern in self._patterns):
                return length
        return 0


def _forms(key: str) -> Iterator[str]:
    """Yield the key in the escaped forms that servers use."""
    yield key
    yield quote(key, safe="")
    for escape in ("%{:02x}", "\\u{:04x}", "\\x{:02x}", "&#{};", "&#x{:x};"):
        yield "".join(escape.format(ord(letter)) for letter in key)
    yield from base64_parts(key)
