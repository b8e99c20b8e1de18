"""One form for every spelling of a text: width, case, traditional characters, invisible characters, blanks."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass

#: Blanks between two characters that are not ASCII separate nothing in Chinese: words are found across them.
_BLANKS = re.compile(r"(?<=[^\x00-\x7f])[ \t\n]+(?=[^\x00-\x7f])|(?<=[ \t])[ \t]+")
#: Where a sentence ends. A point ends one only before a blank or the end, so that 38.5 stays whole.
_SENTENCE_ENDS = re.compile(r"[。!?;]+|\.{2,}|\.(?=\s|$)|\n\s*\n")
_CLAUSE_ENDS = re.compile(r"[,:、\n]")
#: One word written with different characters: pain, the pronouns and particles, and what Cantonese, Wu and
#: the chat rooms write for them. The right-hand ones are those of the lexicon.
_SAME = str.maketrans(
    "疼庝著她它牠妳您祂佢得嘅唔勿冇咗嘞喇啦喽囉瞓畀俾喺嚟揸係閪",
    "痛痛着他他他你你他他的的不不没了了了了了了睡被被在来抓是死",
)


class _Folding(dict[int, str]):
    """Gives for each character its folded form, worked out when it is first seen."""

    def __init__(self, traditional: dict[str, str]) -> None:
        super().__init__()
        self._traditional = traditional

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) in ("Cf", "Mn", "Cs", "Co"):
            folded = ""
        elif character in "\r\n\v\f\u2028\u2029\x85":
            folded = "\n"
        elif character.isspace():
            folded = " "
        else:
            folded = unicodedata.normalize("NFKC", character).casefold().translate(_SAME)
            folded = "".join(self._traditional.get(each, each) for each in folded).translate(_SAME)
        self[code] = folded
        return folded


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A text as the rules read it.

    `sentence_ends` and `clause_ends` are positions in `text`, ascending; a clause ends at both kinds and
    where a blank stood between Chinese characters.
    """

    text: str
    original: str
    sentence_ends: list[int]
    clause_ends: list[int]
    _starts: list[int] | None

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Return where text[start:end] is in `original`."""
        if self._starts is None:
            return start, end
        return self._starts[start], self._starts[end - 1] + 1 if end > start else self._starts[start]

    def folded_span(self, start: int, end: int) -> tuple[int, int]:
        """Return where original[start:end] is in `text`."""
        if self._starts is None:
            return start, end
        return bisect_left(self._starts, start), bisect_left(self._starts, end)

    def clause_end_between(self, start: int, end: int) -> bool:
        """Whether a clause ends between two words, of which one ends at `start` and one begins at `end`."""
        return _within(self.clause_ends, start, end)

    def sentence_end_between(self, start: int, end: int) -> bool:
        """Whether a sentence ends between two words, of which one ends at `start` and one begins at `end`."""
        return _within(self.sentence_ends, start, end)


def _within(positions: list[int], start: int, end: int) -> bool:
    index = bisect_left(positions, start)
    return index < len(positions) and positions[index] <= end


class Folder:
    """Folds texts. Keeps what it has learned of each character."""

    def __init__(self, traditional: dict[str, str]) -> None:
        """Take the traditional characters to replace, each with its simplified form."""
        self._folding = _Folding(traditional)

    def word(self, word: str) -> str:
        """Return a word of the lexicon, or a piece of one, as it is in a folded text."""
        return word.translate(self._folding)

    def fold(self, text: str) -> FoldedText:
        """Return the folded text, in time linear in its length."""
        folded = text.translate(self._folding)
        starts = None if len(folded) == len(text) else self._positions(text)
        gaps: list[int] = []
        paragraphs: list[int] = []
        if (" " in folded or "\n" in folded) and (blanks := list(_BLANKS.finditer(folded))):
            kept = list(range(len(folded))) if starts is None else starts
            twice = ["\n\n" in match[0].replace(" ", "") for match in blanks]
            folded, starts, gaps = _without(folded, kept, [match.span() for match in blanks])
            paragraphs = [gap for gap, is_paragraph in zip(gaps, twice, strict=True) if is_paragraph]
        sentence_ends = sorted([*paragraphs, *(match.start() for match in _SENTENCE_ENDS.finditer(folded))])
        clause_ends = [match.start() for match in _CLAUSE_ENDS.finditer(folded)]
        return FoldedText(folded, text, sentence_ends, sorted([*clause_ends, *sentence_ends, *gaps]), starts)

    def _positions(self, text: str) -> list[int]:
        folding = self._folding
        return [at for at, character in enumerate(text) for _ in folding[ord(character)]]


def _without(text: str, starts: list[int], spans: list[tuple[int, int]]) -> tuple[str, list[int], list[int]]:
    """Cut `spans` out of the text and its positions; return both and where the cuts are now."""
    parts: list[str] = []
    kept: list[int] = []
    cuts: list[int] = []
    done = 0
    for start, end in spans:
        parts.append(text[done:start])
        kept += starts[done:start]
        cuts.append(len(kept))
        done = end
    parts.append(text[done:])
    kept += starts[done:]
    return "".join(parts), kept, cuts
