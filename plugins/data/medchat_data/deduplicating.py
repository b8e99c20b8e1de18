"""Which records of a file say what another one says already. Knows no files and no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medchat.plugin_kit import QuestionRecord
from medchat_data.differences import difference
from medchat_data.near_duplicates import like_texts
from medchat_data.verifying import normalised

#: What is compared: the question with all that was said before it, or that and the answer.
BY_QUESTION, BY_RECORD = "question", "record"
#: Which record of a group stays.
KEEP_FIRST, KEEP_LONGEST = "first", "longest"


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found. `groups` holds the numbers of the record that stays, then of those that go, by its number.

    `candidates` are pairs that MinHash gave, `alike` those that are above the threshold, and `kept_apart` counts
    those of them that differ, by the kind of difference.
    """

    groups: Mapping[int, tuple[int, ...]]
    candidates: int
    alike: int
    kept_apart: Mapping[str, int]

    @property
    def removed(self) -> frozenset[int]:
        """The numbers of the records that go."""
        return frozenset(number for group in self.groups.values() for number in group)


def question_of(asked: QuestionRecord) -> str:
    """Return all that the user says in a record, with its input."""
    return "\n".join(
        [*(turn.question for turn in asked.turns), asked.last, *([asked.input] if asked.input else [])]
    )


def record_text(asked: QuestionRecord) -> str:
    """Return all that is said in a record, answers and system text among it."""
    said = [part for turn in asked.turns for part in (turn.question, turn.answer)]
    reference = asked.reference if isinstance(asked.reference, str) else ""
    return "\n".join(filter(None, [asked.system, *said, asked.last, asked.input, reference]))


def duplicates(records: Sequence[QuestionRecord], by: str, keep: str, threshold: float) -> Duplicates:
    """Return the groups of records that say the same. Each that goes is a duplicate of the one that stays.

    Raises UsageError where datasketch is not installed.
    """
    questions = [question_of(asked) for asked in records]
    compared = questions if by == BY_QUESTION else [record_text(asked) for asked in records]
    found = like_texts([normalised(text) for text in compared], threshold)
    alike: dict[int, set[int]] = {}
    apart: dict[str, int] = {}
    for pair in found.pairs:
        if kind := difference(questions[pair.first], questions[pair.second]):
            apart[kind] = apart.get(kind, 0) + 1
            continue
        alike.setdefault(pair.first, set()).add(pair.second)
        alike.setdefault(pair.second, set()).add(pair.first)
    lengths = [len(record_text(asked)) for asked in records]
    order = sorted(alike) if keep == KEEP_FIRST else sorted(alike, key=lambda one: (-lengths[one], one))
    groups: dict[int, tuple[int, ...]] = {}
    gone: set[int] = set()
    for number in order:
        if number in gone:
            continue
        # One that stays already is no duplicate of this one, or this one would have gone.
        if others := tuple(sorted(alike[number] - gone - set(groups))):
            groups[number] = others
            gone.update(others)
    return Duplicates(dict(sorted(groups.items())), found.candidates, len(found.pairs), apart)
