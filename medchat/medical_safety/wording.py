"""How much the wording of a text speaks for an emergency: each piece has a weight, learned from labelled sentences.

Rules need words that somebody thought of, and words alone do not tell "he is drowning" from a talk about drowning.
How people write of a danger resembles how others wrote of theirs, and so does how they write of an examination, a
film or an alarm they mean to buy. The sum of the weights says which of the two a text resembles: where no rule has
the words, a high sum calls for a notice; where a rule has them, a low sum silences it. The weights are a dated file
of the lexicon, made by scripts/red_flag_weights.py; the sum is deterministic, and its evidence names the pieces
that weighed most.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from medchat.medical_safety.folding import FoldedText
from medchat.medical_safety.lexicon_files import lexicon_text

FILE = "weights.json"
#: Longer texts are left to the rules: a sum over pages means nothing.
MAX_CHARACTERS = 400
#: Shorter ones too: a word alone has no context. A bare cry is believed; a Latin letter says a quarter of a character.
MIN_CHARACTERS, _BARE, _LATIN_SHARE = 6, 12, 0.25
#: Sequences of so many Chinese characters are pieces.
_CHINESE = (1, 2, 3)
#: Latin words of so many letters are pieces; so are any two that follow each other.
_LATIN_LENGTH = 2
#: How many clauses at the beginning and at the end are tried without.
_CLAUSES = 3
#: In a longer text, what is said is weighed without what stands far from it: by sentences, or so much around it.
_AROUND = 60
#: No clause is longer than this: who writes without punctuation has none.
_CLAUSE = 20
#: How many pieces are named as evidence.
_NAMED = 5
#: Without a word of one of these classes a text is about something else.
_BODILY = ("sign.", "term.", "ill.", "part.", "sense.", "agent.", "source.", "state.", "place.edge", "act.")
#: Of the classes that are no bodies' words, these say what kind of a text it is; others depend on how one asks.
_KINDS = ("genre.", "exam", "joke", "figure", "prevent", "if", "amount.", "age.", "word.")
#: What is said to anybody about anything: it weighs nothing.
_COURTESY = re.compile(
    "医生您好|医生你好|您好医生|你好医生|大夫您好|您好|你好|请问一下|请问|谢谢医生|谢谢大夫|谢谢您|谢谢|麻烦了|在线等"
    "|这是什么原因引起的|是什么原因引起的|什么原因引起的|是什么病|需要做什么检查|应该怎么办|怎么办|该怎么办"
    "|hi doctor|hello doctor|thank you|thanks|what is causing this"
)
_PUNCTUATION = re.compile(r"(?<=[^\x00-\x7f])[\W_]+(?=[^\x00-\x7f])")
_NO_WORDS = re.compile(r"[\W_]+")
_LATIN_WORDS = re.compile(r"[a-z][a-z']*")
_RUNS = re.compile(r"[a-z0-9']+|[^a-z0-9' ]+")


#: (start, end, class) of what the lexicon finds; "not " before the class where the text takes it back.
Mark = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight of each piece, and what sums mean.

    A sum over `alarm` calls for a notice where no rule fires; one under `doubt` silences a rule, one under
    `vital_doubt` a rule for a danger to life.
    """

    pieces: dict[str, float]
    bias: float
    alarm: float
    doubt: float
    vital_doubt: float


@cache
def lexicon_weights() -> Weights:
    """Return the weights of the lexicon, read at the first call."""
    table = json.loads(lexicon_text(FILE))
    return Weights(table["pieces"], table["bias"], table["alarm"], table["doubt"], table["vital_doubt"])


def weighs(name: str) -> bool:
    """Whether a class is a piece."""
    return name != "exam.clinical" and name.startswith((*_BODILY, *_KINDS))


def plain_words(text: str) -> str:
    """Return the words of a folded text: without punctuation, and without what is said to anybody."""
    return _NO_WORDS.sub(" ", _PUNCTUATION.sub("", _COURTESY.sub("", text))).strip()


def _spans(folded: FoldedText) -> Iterator[tuple[int, int]]:
    """Yield where the text stands, whole; then without its first and last clauses, or a longer one by sentences.

    What is before or behind what is said must not weaken it.
    """
    size = len(folded.text)
    yield 0, size
    if size > _AROUND:
        yield from pairwise([0, *folded.sentence_ends, size])
        return
    clauses = [end for end in folded.clause_ends if 0 < end < size - 1]
    sentences = [end for end in folded.sentence_ends if 0 < end < size - 1]
    shorter = {(end, size) for end in (*clauses[:_CLAUSES], *sentences[:1])}
    yield from sorted(shorter | {(0, end) for end in (*clauses[-_CLAUSES:], *sentences[-1:])})


def _windows(folded: FoldedText, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield what is around text[start:end]: its sentence, and clauses of about `_AROUND` characters."""
    size, room = len(folded.text), max(0, _AROUND - (end - start))
    yield _to_ends(folded.sentence_ends, start, end, size)
    for before in (room // 2, room, 0):
        first, last = max(0, start - before), min(size, end + room - before)
        begins, ends = _to_ends(folded.clause_ends, first, last, size)
        yield max(begins, first - _CLAUSE), min(ends, last + _CLAUSE)


def _to_ends(ends: list[int], start: int, end: int, size: int) -> tuple[int, int]:
    """Widen a span to the last of the `ends` before it, and the first behind it."""
    before, behind = bisect_right(ends, start), bisect_left(ends, end)
    return ends[before - 1] if before else 0, ends[behind] if behind < len(ends) else size


def _is_bare(words: str) -> bool:
    """Whether there is so little that how it is worded says nothing: "被蛇咬了"."""
    return sum(_LATIN_SHARE if each < "\x80" else 1 for each in words) < _BARE


def pieces(words: str, classes: Iterable[str]) -> set[str]:
    """Return the pieces of a text without punctuation: sequences of characters and of Latin words, and classes."""
    found = {f"class:{name}" for name in classes}
    for run in _RUNS.findall(words):
        if not run[0].isascii():
            found |= {run[at : at + size] for size in _CHINESE for at in range(len(run) - size + 1)}
    latin = _LATIN_WORDS.findall(words)
    found |= {f"_{word}" for word in latin if len(word) >= _LATIN_LENGTH}
    found |= {f"_{one}_{two}" for one, two in pairwise(latin)}
    return found


class Wording:
    """What the weights say of one text. `marks` is what the lexicon finds in it."""

    def __init__(self, weights: Weights, folded: FoldedText, marks: Iterable[Mark]) -> None:
        self._weights = weights
        self._folded = folded
        self._marks = list(marks)
        self._bodily = any(name.startswith(_BODILY) for _, _, name in self._marks)

    @property
    def is_weighed(self) -> bool:
        """Whether the sum means anything: not of pages, and not of a text without a word on a body."""
        return self._bodily and len(self._folded.text) <= MAX_CHARACTERS

    def alarms(self) -> list[str] | None:
        """Return the pieces that weighed most in a text whose wording calls for a notice, None of any other."""
        goal = self._weights.alarm
        spans = _spans(self._folded) if self.is_weighed else ()
        total, heaviest = self._heaviest(spans, goal, least_characters=MIN_CHARACTERS)
        if total <= goal:
            return None
        weighed = sorted(((self._weights.pieces.get(piece, 0), piece) for piece in heaviest), reverse=True)
        named = [piece for weight, piece in weighed if weight > 0 and not piece.startswith("class:")]
        return named[:_NAMED]

    def is_doubtful(self, found: Iterable[tuple[int, int]], *, vital: bool) -> bool:
        """Whether the wording speaks against what rules found, a `vital` one among them or not.

        `found` is where in the folded text that stands; what is before or behind it does not weaken it.
        """
        goal = self._weights.vital_doubt if vital else self._weights.doubt
        return self.total(found, goal) < goal

    def total(self, found: Iterable[tuple[int, int]], goal: float = math.inf) -> float:
        """Return the sum of the heaviest span around what was `found`, or of the first that reaches `goal`.

        Infinite where nothing is weighed.
        """
        if not self.is_weighed or _is_bare(plain_words(self._folded.text)):
            return math.inf
        best = -math.inf
        for each in found:
            best = max(best, self._heaviest(self._around(*each), goal)[0])
            if best >= goal:
                break
        return best

    def _around(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        if len(self._folded.text) > _AROUND:
            yield from _windows(self._folded, start, end)  # short, and heavier than the whole where it is so
            yield 0, len(self._folded.text)
        else:
            yield from (span for span in _spans(self._folded) if span[0] <= start and end <= span[1])

    def _heaviest(
        self,
        spans: Iterable[tuple[int, int]],
        goal: float,
        *,
        least_characters: int = 1,
    ) -> tuple[float, set[str]]:
        best, of_best = -math.inf, set[str]()
        for start, end in spans:
            words = plain_words(self._folded.text[start:end])
            if len(words) < least_characters:
                continue
            in_it = pieces(
                words, {name for first, last, name in self._marks if start <= first and last <= end}
            )
            total = self._weigh(in_it)
            if total > best:
                best, of_best = total, in_it
            if best >= goal:
                break
        return best, of_best

    def _weigh(self, found: set[str]) -> float:
        weights = self._weights.pieces
        weighed = [weights[piece] for piece in found if piece in weights]
        return self._weights.bias + math.fsum(weighed) / math.sqrt(len(found) or 1)
