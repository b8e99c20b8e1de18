"""What a file of training data is like: counts and lengths, and what is known to spoil what is learned from it.

The signs are found by patterns: a count says how often to look, not how often something is wrong. Knows no terminal.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

#: An answer that begins by agreeing. A model that learns many of them agrees with whatever is asserted.
AGREEING = re.compile(r"\s*(?:是的|对|没错)")
#: A question that begins with what only an earlier one could explain.
DANGLING = re.compile(r"\s*(?:这|该|上述|他|她)")
#: An amount of a medicine, or how many times it is given.
DOSE = re.compile(
    r"\d\s*(?:mg|毫克|微克|[μµu]g|克|g|ml|毫升|片|粒|支|袋|丸|滴|万?单位|u\b|iu|次)", re.IGNORECASE
)
#: An answer of fewer characters says little.
SHORT_ANSWER = 10


@dataclass(frozen=True, slots=True)
class Exchange:
    """One record as it is learned: its user's words, first and last, and the answers. `source` is its id, if any."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    input: str = ""
    source: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of texts, in characters or tokens, the shortest first."""

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Lengths:
        """Return the lengths in order; of nothing one of 0."""
        return cls(tuple(sorted(sizes)) or (0,))

    @property
    def median(self) -> float:
        """The one in the middle."""
        return float(statistics.median(self.sizes))

    @property
    def p90(self) -> int:
        """What nine of ten do not exceed."""
        return self.sizes[-(-len(self.sizes) * 9 // 10) - 1]

    @property
    def longest(self) -> int:
        """The longest."""
        return self.sizes[-1]

    def as_json(self) -> dict[str, Any]:
        """Return the three as JSON holds them."""
        return {"median": self.median, "p90": self.p90, "longest": self.longest}


@dataclass(frozen=True, slots=True)
class Measures:
    """The counts of one file. Each counts records, but for `short_answers`, `agreeing` and `doses`: answers.

    `turns` counts records by how often the user speaks. `repeated_questions` are those that ask what an earlier
    record asks, `sources` the different ids among the `with_id` records.
    """

    records: int
    forms: Mapping[str, int]
    turns: Mapping[int, int]
    answers: int
    question_characters: Lengths
    answer_characters: Lengths
    without_input: int
    without_answer: int
    repeated_questions: int
    with_id: int
    sources: int
    short_answers: int
    agreeing: int
    dangling: int
    doses: int

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: one.as_json() if isinstance(one, Lengths) else one for name, one in values.items()}


def measure(records: Iterable[Exchange]) -> Measures:
    """Return the counts over the records. Raises ValueError where there is none."""
    exchanges = list(records)
    if not exchanges:
        raise ValueError("no record to measure")
    answers = [answer for one in exchanges for answer in one.answers]
    asked = Counter((tuple(text.strip() for text in one.questions), one.input.strip()) for one in exchanges)
    ids = [one.source for one in exchanges if one.source]
    return Measures(
        records=len(exchanges),
        forms=dict(Counter(one.form for one in exchanges).most_common()),
        turns=dict(sorted(Counter(len(one.questions) for one in exchanges).items())),
        answers=len(answers),
        question_characters=Lengths.of(len(one.questions[-1]) for one in exchanges),
        answer_characters=Lengths.of(map(len, answers)),
        without_input=sum(not one.input.strip() for one in exchanges),
        without_answer=sum(not one.answers for one in exchanges),
        repeated_questions=sum(count - 1 for count in asked.values()),
        with_id=len(ids),
        sources=len(set(ids)),
        short_answers=sum(len(answer) < SHORT_ANSWER for answer in answers),
        agreeing=sum(AGREEING.match(answer) is not None for answer in answers),
        dangling=sum(DANGLING.match(one.questions[0]) is not None for one in exchanges),
        doses=sum(DOSE.search(answer) is not None for answer in answers),
    )
