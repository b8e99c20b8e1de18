"""Which questions of a test stand in training data: as they are, with a character changed, alike, or inside a text.

Knows no files and no terminal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from medchat.plugin_kit import QuestionRecord
from medchat_data.deduplicating import record_text
from medchat_data.near_duplicates import THRESHOLD, Likeness, like_texts, nearest
from medchat_data.verifying import normalised

#: The kinds, the surest first.
_EXACT, _ONE_CHARACTER, _INSIDE, _ALIKE = "exact", "one-character", "inside", "alike"
#: A question of fewer characters may stand inside a text by chance, or be another with one changed.
_SHORTEST = 8
#: So many pairs of a question and a record take some ten seconds.
MOST_PAIRS = 20_000_000

#: Texts with the numbers of their records; questions by their numbers; pairs of a question's and a record's number.
_Texts: TypeAlias = Sequence[tuple[int, str]]
_Questions: TypeAlias = Mapping[int, str]
_Pairs: TypeAlias = Iterator[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LeakedQuestion:
    """A question of the test, by its number, that stands in the record of that number of the training data."""

    question: int
    record: int
    kind: str


def contaminated(training: Sequence[QuestionRecord], questions: Sequence[str]) -> list[LeakedQuestion]:
    """Return, for each question found, the first record that has it in the surest way.

    Raises UsageError where datasketch is not installed.
    """
    units = [(number, normalised(text)) for number, asked in enumerate(training) for text in _asked(asked)]
    texts = [(number, normalised(record_text(asked))) for number, asked in enumerate(training)]
    left = {number: text for number, question in enumerate(questions) if (text := normalised(question))}
    found: dict[int, LeakedQuestion] = {}
    for kind, find, where in (
        (_EXACT, _exact, units),
        (_ONE_CHARACTER, _one_character, units),
        (_INSIDE, _inside, texts),
        (_ALIKE, _alike, units),
    ):
        for question, record in find(where, left):
            found.setdefault(question, LeakedQuestion(question, record, kind))
        left = {number: text for number, text in left.items() if number not in found}
    return [found[question] for question in sorted(found)]


def nearest_left(
    training: Sequence[QuestionRecord], questions: Sequence[str], found: Sequence[LeakedQuestion]
) -> Likeness | None:
    """Return which of the questions that were not found is most like one of the training data, and which record.

    None where all were found, and for more than `MOST_PAIRS` pairs to compare.
    """
    gone = {one.question for one in found}
    left = [number for number in range(len(questions)) if number not in gone]
    units = [(number, normalised(text)) for number, asked in enumerate(training) for text in _asked(asked)]
    if len(left) * len(units) > MOST_PAIRS:
        return None
    best = nearest([normalised(questions[number]) for number in left], [text for _, text in units])
    return best and Likeness(left[best.first], units[best.second][0], best.jaccard)


def _asked(asked: QuestionRecord) -> Iterator[str]:
    """Yield the questions of a record, each turn's by itself; the last one with and without its input."""
    yield from (turn.question for turn in asked.turns if turn.question)
    yield asked.last
    if asked.input:
        yield f"{asked.last}{asked.input}"


def _exact(texts: _Texts, questions: _Questions) -> _Pairs:
    places: dict[str, int] = {}
    for record, text in texts:
        places.setdefault(text, record)
    yield from ((number, places[text]) for number, text in questions.items() if text in places)


def _one_character(texts: _Texts, questions: _Questions) -> _Pairs:
    """Yield those that are equal but for one character that is another, missing, or too much."""
    whole: dict[str, list[int]] = defaultdict(list)
    shortened: dict[str, list[int]] = defaultdict(list)
    changed: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number, question in questions.items():
        if len(question) >= _SHORTEST:
            whole[question].append(number)
            for place, rest in _without_one(question):
                shortened[rest].append(number)
                changed[place, rest].append(number)
    for record, text in texts:
        yield from ((number, record) for number in shortened.get(text, ()))
        for place, rest in _without_one(text):
            yield from ((number, record) for number in whole.get(rest, ()))
            yield from ((number, record) for number in changed.get((place, rest), ()))


def _without_one(text: str) -> Iterator[tuple[int, str]]:
    return ((place, text[:place] + text[place + 1 :]) for place in range(len(text)))


def _inside(texts: _Texts, questions: _Questions) -> _Pairs:
    """Yield those that stand anywhere in a text; found by their first characters, so that the time is linear."""
    beginning: dict[str, list[int]] = defaultdict(list)
    for number, question in questions.items():
        if len(question) >= _SHORTEST:
            beginning[question[:_SHORTEST]].append(number)
    for record, text in texts:
        for place in range(len(text) - _SHORTEST + 1):
            for number in beginning.get(text[place : place + _SHORTEST], ()):
                if text.startswith(questions[number], place):
                    yield number, record


def _alike(texts: _Texts, questions: _Questions) -> _Pairs:
    numbers = list(questions)
    if numbers:
        compared = [*questions.values(), *(text for _, text in texts)]
        for pair in like_texts(compared, THRESHOLD, against=len(numbers)).pairs:
            yield numbers[pair.first], texts[pair.second - len(numbers)][0]
