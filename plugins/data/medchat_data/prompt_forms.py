"""The prompt forms: each makes one question and its answer of a knowledge record, from what the record says alone.

Which wording, which value and which other record is drawn by a generator that depends on the seed, the record and the
form, and on nothing else: the same knowledge gives the same data, however often a run is interrupted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from medchat.plugin_kit import Turn
from medchat_data.converting import as_dialogue
from medchat_data.knowledge import KnowledgeRecord
from medchat_data.relations import (
    DEPARTMENT,
    MYTH_MARK,
    MYTHS,
    SYMPTOMS,
    TESTS,
    TREATMENT,
    WHEN_TO_GO,
    as_phrase,
    of_kind,
    relation_named,
    statement_of,
)
from medchat_data.verifying import normalised

#: Rises when the wording of any form changes: data built before and after it are not alike.
FORM_VERSION = 2
#: A story tells so many symptoms at most, each of at most so many characters.
_STORY_SYMPTOMS, _STORY_CHARACTERS = 4, 14
#: So many other records are looked at for one that fits.
_TRIES = 20
#: What the answer to a check says first.
RIGHT, WRONG, OPEN = "是", "不对", "不能肯定"
_PATIENTS = ("一位患者", "我家里人", "我一位朋友")


@dataclass(frozen=True, slots=True)
class Sample:
    """A question, its answer, and what they rest on: `sources`, the record itself first, and the `relations` used.

    `values` are those of the record that the answer must name one of. `hidden` is what the question must not name.
    `before` is what was said before the question, by turns; `verdict` is what the answer's first sentence says.
    """

    form: str
    question: str
    answer: str
    sources: tuple[KnowledgeRecord, ...]
    relations: tuple[str, ...]
    values: tuple[str, ...]
    hidden: str = ""
    before: tuple[Turn, ...] = ()
    verdict: str = ""

    @property
    def instruction(self) -> str:
        """The question as training data has it, with what was said before."""
        return as_dialogue(self.before, self.question) if self.before else self.question


@dataclass(frozen=True)
class Knowledge:
    """All records, from which a form draws others."""

    records: Sequence[KnowledgeRecord]

    @cached_property
    def by_relation(self) -> Mapping[str, Sequence[KnowledgeRecord]]:
        """The records that have a relation, by its name."""
        found: dict[str, list[KnowledgeRecord]] = {}
        for record in self.records:
            for name in record.relations:
                found.setdefault(name, []).append(record)
        return found

    @cached_property
    def spread(self) -> Counter[str]:
        """In how many records each value, normalised, stands."""
        said = (
            {normalised(one) for values in record.relations.values() for one in values}
            for record in self.records
        )
        return Counter(value for values in said for value in values)

    def others(self, record: KnowledgeRecord, name: str, chance: random.Random) -> Iterator[KnowledgeRecord]:
        """Yield other records with that relation, drawn one by one."""
        pool = self.by_relation.get(name, ())
        for _ in range(_TRIES if len(pool) > 1 else 0):
            other = chance.choice(pool)
            if normalised(other.centre) != normalised(record.centre):
                yield other


Form = Callable[[KnowledgeRecord, Knowledge, random.Random], Iterator[Sample]]


def _direct(record: KnowledgeRecord, knowledge: Knowledge, chance: random.Random) -> Iterator[Sample]:
    """Ask for each relation."""
    for name, values in record.relations.items():
        question = chance.choice(relation_named(name).questions).format(e=record.centre)
        yield Sample("direct", question, _answered(record, name), (record,), (name,), values)


def _compare(record: KnowledgeRecord, knowledge: Knowledge, chance: random.Random) -> Iterator[Sample]:
    """Ask in what two differ; the answer says what is said of each, and what of both, and that it is not all."""
    left_out = (DEPARTMENT, MYTHS, WHEN_TO_GO)
    names = [name for name in record.relations if relation_named(name) not in left_out]
    chance.shuffle(names)
    for name in names:
        for other in knowledge.others(record, name, chance):
            kind = relation_named(name)
            question = f"{record.centre}和{other.centre}的{kind.name}有什么不同？"
            both = [value for value in record.relations[name] if value in other.relations[name]]
            answer = "".join(
                statement_of(name, one.centre, one.relations[name], briefly=True) for one in (record, other)
            )
            if both:
                answer += f"两者相同的有{as_phrase(both)}。"
            answer += "这里只列出主要的几项，没有列出的不等于没有。"
            yield Sample("compare", question, answer, (record, other), (name,), record.relations[name])
            return


def _case(record: KnowledgeRecord, knowledge: Knowledge, chance: random.Random) -> Iterator[Sample]:
    """Tell symptoms and ask what it may be: the centre word stands in the answer alone."""
    names = of_kind(tuple(record.relations), SYMPTOMS)
    short = [value for name in names for value in record.relations[name] if len(value) <= _STORY_CHARACTERS]
    if len(short) < 2:
        return
    told = sorted(chance.sample(short, min(len(short), _STORY_SYMPTOMS)), key=short.index)
    question = f"{chance.choice(_PATIENTS)}有{as_phrase(told)}等表现，可能是什么病？"
    tests = of_kind(tuple(record.relations), TESTS)
    by = f"结合{as_phrase(record.relations[tests[0]])}的结果，" if tests else ""
    answer = _when_to_go(record)  # first: whoever tells such symptoms may have no time to lose
    answer += f"这些表现可见于{record.centre}，但其他疾病也可能这样，不能只凭症状下结论，需要{by}由医生判断。"
    yield Sample(
        "case", question, answer, (record,), (names[0], *tests[:1]), (record.centre,), hidden=record.centre
    )


def _treatment(record: KnowledgeRecord, knowledge: Knowledge, chance: random.Random) -> Iterator[Sample]:
    """Tell a case with its diagnosis and ask what is done."""
    names = of_kind(tuple(record.relations), TREATMENT)
    if not names:
        return
    symptoms = of_kind(tuple(record.relations), SYMPTOMS)
    short = [
        value for name in symptoms for value in record.relations[name] if len(value) <= _STORY_CHARACTERS
    ]
    told = f"，有{as_phrase(short[:3])}等表现" if short else ""
    question = f"{chance.choice(_PATIENTS)}被医生诊断为{record.centre}{told}，一般会怎样治疗？"
    answer = _stated(record, names[0]) + _when_to_go(record)
    yield Sample(
        "treatment", question, answer, (record,), (names[0], *symptoms[:1]), record.relations[names[0]]
    )


def _check(record: KnowledgeRecord, knowledge: Knowledge, chance: random.Random) -> Iterator[Sample]:
    """Ask whether something holds; every other time it is a misconception, or what another record says.

    Only a misconception is denied: what a record does not list may well hold for it all the same.
    """
    myths = of_kind(tuple(record.relations), MYTHS)
    names = [name for name in record.relations if relation_named(name).check and name not in myths]
    is_own = chance.random() < 0.5
    if myths and not (is_own and names):
        yield _misconception(record, myths[0], chance)
        return
    if not names:
        return
    name = chance.choice(names)
    kind = relation_named(name)
    if is_own:
        value = chance.choice(record.relations[name])
        asked, answer = kind.check.format(e=record.centre, v=value), "是。" + _answered(record, name)
        yield Sample("check", asked, answer, (record,), (name,), record.relations[name], verdict=RIGHT)
        return
    for other in knowledge.others(record, name, chance):
        value = chance.choice(other.relations[name])
        if knowledge.spread[normalised(value)] == 1 and not _is_known_of(value, record):
            stated = statement_of(name, record.centre, record.relations[name], briefly=True)
            yield Sample(
                "check",
                kind.check.format(e=record.centre, v=value),
                f"不能肯定。{stated}这里没有列出{value}，但列出的不是全部，请向医生或药师核实。",
                (record, other),
                (name,),
                record.relations[name],
                verdict=OPEN,
            )
            return


def _misconception(record: KnowledgeRecord, name: str, chance: random.Random) -> Sample:
    said, _, right = chance.choice(record.relations[name]).partition(MYTH_MARK)
    return Sample(
        "check",
        MYTHS.check.format(e=record.centre, v=said),
        (f"不对。{right}。" if right else f"“{said}”不对。") + _when_to_go(record),
        (record,),
        (name,),
        (right or said,),
        verdict=WRONG,
    )


def _follow_up(record: KnowledgeRecord, knowledge: Knowledge, chance: random.Random) -> Iterator[Sample]:
    """Ask a second thing in a dialogue, in the form of the literature data; the centre word was named before."""
    names = list(record.relations)
    if len(names) < 2:
        return
    first, second = chance.sample(names, 2)
    asked = chance.choice(relation_named(first).questions).format(e=record.centre)
    yield Sample(
        "follow-up",
        relation_named(second).next,
        _answered(record, second),
        (record,),
        (first, second),
        record.relations[second],
        before=(Turn(asked, _answered(record, first)),),
    )


#: Every form by its name, in the order in which a record's samples stand.
FORMS: Mapping[str, Form] = {
    "direct": _direct,
    "compare": _compare,
    "case": _case,
    "treatment": _treatment,
    "check": _check,
    "follow-up": _follow_up,
}


def samples_of(
    record: KnowledgeRecord, knowledge: Knowledge, forms: Sequence[str], seed: int
) -> Iterator[Sample]:
    """Yield what the forms make of a record. One that needs what the record lacks makes nothing."""
    for form in forms:
        yield from FORMS[form](record, knowledge, random.Random(f"{seed}/{record.sha256}/{form}"))


def _stated(record: KnowledgeRecord, name: str) -> str:
    return statement_of(name, record.centre, record.relations[name])


def _answered(record: KnowledgeRecord, name: str) -> str:
    """Return the statement, and with symptoms and departments when to seek help at once."""
    kind, stated = relation_named(name), _stated(record, name)
    if kind is DEPARTMENT:  # whoever is to call an ambulance first looks for no department
        return _when_to_go(record) + stated
    return stated + _when_to_go(record) if kind is SYMPTOMS else stated


def _when_to_go(record: KnowledgeRecord) -> str:
    """Return what the record says of when to seek help at once, as sentences."""
    names = of_kind(tuple(record.relations), WHEN_TO_GO)
    return "".join(f"{value}。" for name in names for value in record.relations[name])


def _is_known_of(value: str, record: KnowledgeRecord) -> bool:
    """Whether the record may be taken to say it: one is part of the other somewhere."""
    plain = normalised(value)
    said = [normalised(one) for values in record.relations.values() for one in values]
    return any(plain in one or one in plain for one in (*said, normalised(record.centre)))
