"""Weak signs that add up, where no rule fires: each piece of a text has a weight, learned from labelled sentences.

Rules need words that somebody thought of. People write of the same danger in words nobody listed; what they use
then still resembles how others wrote of theirs. The weights are a dated file of the lexicon, made by
scripts/red_flag_weights.py; the sum is deterministic, and its evidence names the pieces that weighed most.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from medchat.medical_safety.folding import FoldedText
from medchat.medical_safety.lexicon_files import lexicon_text

FILE = "weights.json"
#: Longer texts are left to the rules: a sum over pages means nothing.
MAX_CHARACTERS = 400
#: Shorter ones too: a word alone has no context.
MIN_CHARACTERS = 6
#: Sequences of so many Chinese characters are pieces: one character says how people tell a story, not what happened.
_CHINESE = (2, 3)
#: Latin words are pieces, and pairs of them, where they have so many letters.
_LATIN_LENGTH = 4
#: So many clauses at the beginning and at the end are tried without; only where the whole is so near the threshold.
_CLAUSES, _NEAR = 3, 1.0
#: So many pieces are named as evidence.
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
    """The weight of each piece; a text whose sum is over `threshold` calls for a notice."""

    pieces: dict[str, float]
    bias: float
    threshold: float


@cache
def lexicon_weights() -> Weights:
    """Return the weights, read at the first call."""
    table = json.loads(lexicon_text(FILE))
    return Weights(table["pieces"], table["bias"], table["threshold"])


def weighs(name: str) -> bool:
    """Whether a class is a piece."""
    return name != "exam.clinical" and name.startswith((*_BODILY, *_KINDS))


def plain_words(text: str) -> str:
    """Return the words of a folded text: without punctuation, and without what is said to anybody."""
    return _NO_WORDS.sub(" ", _PUNCTUATION.sub("", _COURTESY.sub("", text))).strip()


def _spans(folded: FoldedText) -> Iterator[tuple[int, int]]:
    """Yield where the text stands, whole, without its first clauses or sentence, and without its last.

    What stands before or behind what is said must not weaken it.
    """
    size = len(folded.text)
    clauses = [end for end in folded.clause_ends if 0 < end < size - 1]
    sentences = [end for end in folded.sentence_ends if 0 < end < size - 1]
    yield 0, size
    shorter = {(end, size) for end in (*clauses[:_CLAUSES], *sentences[:1])}
    yield from sorted(shorter | {(0, end) for end in (*clauses[-_CLAUSES:], *sentences[-1:])})


def pieces(words: str, classes: Iterable[str]) -> set[str]:
    """Return the pieces of a text without punctuation: sequences of characters and of Latin words, and classes."""
    found = {f"class:{name}" for name in classes}
    for run in _RUNS.findall(words):
        if not run[0].isascii():
            found |= {run[at : at + size] for size in _CHINESE for at in range(len(run) - size + 1)}
    latin = _LATIN_WORDS.findall(words)
    found |= {f"_{word}" for word in latin if len(word) >= _LATIN_LENGTH}
    if len(latin) > 1:
        pairs = pairwise(latin)
        found |= {f"_{one}_{two}" for one, two in pairs if max(len(one), len(two)) >= _LATIN_LENGTH}
    return found


def weigh(weights: Weights, folded: FoldedText, marks: Iterable[Mark]) -> tuple[float, list[str]]:
    """Return how far a text is over the threshold, and the pieces that weighed most in it.

    `marks` is what the lexicon finds in the text. Texts too short or too long, and those without a word on a
    body, are infinitely far below.
    """
    best, reasons = -math.inf, list[str]()
    marks = list(marks)
    if len(folded.text) > MAX_CHARACTERS or not any(name.startswith(_BODILY) for _, _, name in marks):
        return best, reasons
    for start, end in _spans(folded):
        words = plain_words(folded.text[start:end])
        if len(words) < MIN_CHARACTERS:
            continue
        found = pieces(words, {name for first, last, name in marks if start <= first and last <= end})
        if not found:  # words of two Latin letters, say
            continue
        weighed = [(weights.pieces[piece], piece) for piece in found if piece in weights.pieces]
        over = (
            weights.bias
            + math.fsum(weight for weight, _ in weighed) / math.sqrt(len(found))
            - weights.threshold
        )
        if over > best:
            best = over
            heaviest = sorted((each for each in weighed if not each[1].startswith("class:")), reverse=True)
            reasons = [piece for weight, piece in heaviest[:_NAMED] if weight > 0]
        if best > 0 or best < -_NEAR:
            break
    return best, reasons


def weigh_by_lexicon(folded: FoldedText, marks: Iterable[Mark]) -> tuple[float, list[str]]:
    """Weigh a text by the weights of the lexicon (`weigh`)."""
    return weigh(lexicon_weights(), folded, marks)
