"""Finding the lexicon's words at a place of a text: one automaton for all, built as texts need it.

A word may be a choice of pieces: "{喘,吸}不{上,进}气" is four words in one entry. Written out, the lexicon has
millions of words; the automaton keeps what texts have begun to spell, and walks on from each place while some
word can still continue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BRACES = re.compile(r"\{([^{}]*)\}")


def is_pattern(word: str) -> bool:
    """Whether a word of the lexicon is a choice of several."""
    return "{" in word


@dataclass(frozen=True, slots=True)
class WordPattern:
    """A word, or a choice of words, of one class: one piece of each of `pieces`, in their order."""

    name: str
    pieces: tuple[tuple[str, ...], ...]

    def examples(self) -> Iterator[str]:
        """Yield words that together hold every piece, each with the longest of the others."""
        longest = [max(choices, key=len) for choices in self.pieces]
        if all(len(choices) == 1 for choices in self.pieces):
            yield "".join(longest)
        for at, choices in enumerate(self.pieces):
            for choice in choices if len(choices) > 1 else ():
                yield "".join([*longest[:at], choice, *longest[at + 1 :]])


def read_pattern(name: str, written: str) -> WordPattern:
    """Return the pattern that an entry of the lexicon writes."""
    parts = _BRACES.split(written)  # plain pieces at even places, choices at odd ones
    pieces = (tuple(dict.fromkeys(part.split(","))) if at % 2 else (part,) for at, part in enumerate(parts))
    return WordPattern(name, tuple(choices for choices in pieces if choices != ("",)))


#: A place within a pattern: the pattern, which of its pieces, the choice, how much of that is spelled.
_Place = tuple[WordPattern, int, str, int]


class _Node(dict[str, "_Node | None"]):
    """What may follow a beginning of words. `names` are the classes of the words that end here."""

    __slots__ = ("names", "places")

    def __init__(self, places: Iterable[_Place], names: frozenset[str]) -> None:
        super().__init__()
        self.places = tuple(places)
        self.names = tuple(sorted(names))

    def __missing__(self, character: str) -> _Node | None:
        node = self[character] = _after(self.places, character)
        return node


class _Root(_Node):
    """The beginning of every word, by its first character."""

    __slots__ = ("_first",)

    def __init__(self, places: Iterable[_Place]) -> None:
        super().__init__((), frozenset())
        self._first: dict[str, list[_Place]] = {}
        for place in places:
            self._first.setdefault(place[2][0], []).append(place)

    def __missing__(self, character: str) -> _Node | None:
        node = self[character] = _after(self._first.get(character, ()), character)
        return node


def _after(places: Iterable[_Place], character: str) -> _Node | None:
    following: set[_Place] = set()
    names: set[str] = set()
    for pattern, piece, choice, spelled in places:
        if choice[spelled] != character:
            continue
        if spelled + 1 < len(choice):
            following.add((pattern, piece, choice, spelled + 1))
        else:
            _enter(pattern, piece + 1, following, names)
    return _Node(following, frozenset(names)) if following or names else None


def _enter(pattern: WordPattern, piece: int, places: set[_Place], names: set[str]) -> None:
    """Add the places at the beginning of a piece, and those behind it where it may be empty."""
    if piece == len(pattern.pieces):
        names.add(pattern.name)
        return
    for choice in pattern.pieces[piece]:
        if choice:
            places.add((pattern, piece, choice, 0))
        else:
            _enter(pattern, piece + 1, places, names)


class WordFinder:
    """Finds words of a lexicon."""

    def __init__(self, patterns: Iterable[WordPattern]) -> None:
        """Take the words to find."""
        places: set[_Place] = set()
        for pattern in patterns:
            _enter(pattern, 0, places, set())
        self._root = _Root(places)

    def words(self, text: str) -> Iterator[tuple[int, list[tuple[int, tuple[str, ...]]]]]:
        """Yield for each place where words begin (start, [(end, classes), ...]), the shortest first."""
        size, root = len(text), self._root
        for start, character in enumerate(text):
            node = root[character]
            if node is None:
                continue
            ends: list[tuple[int, tuple[str, ...]]] | None = None
            end = start + 1
            while True:
                if node.names and not (text[end - 1] < "\x80" and _inside_a_word(text, start, end)):
                    if ends is None:
                        ends = [(end, node.names)]
                    else:
                        ends.append((end, node.names))
                if end == size:
                    break
                node = node[text[end]]
                if node is None:
                    break
                end += 1
            if ends is not None:
                yield start, ends


def _inside_a_word(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is a piece of a longer word in Latin letters."""
    if text[start].isascii() and text[start].isalpha() and start and _is_letter(text[start - 1]):
        return True
    return end < len(text) and _is_letter(text[end]) and _is_letter(text[end - 1])


def _is_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()
