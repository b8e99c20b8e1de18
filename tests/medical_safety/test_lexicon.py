"""The lexicon itself: every word is found and can be taken back, every rule can fire, every notice can be read."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from datetime import date

import pytest
from locations import ROOT

from medchat.medical_safety import find_red_flags
from medchat.medical_safety.lexicon_files import POLAR, FlagRule, Lexicon, lexicon_tables, load_lexicon
from medchat.medical_safety.measures import measures
from medchat.medical_safety.mentions import find_mentions

pytestmark = pytest.mark.safety
#: For each word of the lexicon: other tests run the same lines, and to trace them takes four times as long.
NOT_TRACED = pytest.mark.no_cover

YEAR = re.compile(r"(?<!\d)(?:19|20)\d{2}(?!\d)")
#: A number that gives each class of measures.
MEASURED = {
    "sign.low-pressure": "血压70/40", "sign.high-pressure": "血压230/140", "sign.raised-pressure": "血压170/100",
    "sign.very-hot": "体温41.2", "sign.fever": "体温38.9", "sign.cold": "体温34.8", "sign.low-oxygen": "血氧78",
    "sign.low-sugar": "血糖2.1", "sign.high-sugar": "血糖31", "sign.fast-pulse": "心率180",
    "sign.slow-pulse": "心率32", "age.young-infant": "20天大的宝宝", "age.child": "6岁", "amount.much": "30片",
    "time.duration": "半小时", "time.past": "三年前", "time.years": "十年", "age.weeks": "36周",
}  # fmt: skip


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load_lexicon()


@pytest.fixture(scope="module")
def examples(lexicon: Lexicon) -> dict[str, list[str]]:
    """Return words of each class that together hold every piece of every entry."""
    found: dict[str, list[str]] = {}
    for pattern in lexicon.words:
        found.setdefault(pattern.name, []).extend(pattern.examples())
    return found


def denied(text: str, lexicon: Lexicon) -> set[str]:
    mentions = find_mentions(lexicon.folder.fold(text), lexicon)
    return {name for name in mentions.names() if any(one.negated for one in mentions.of((name,)))}


@NOT_TRACED
def test_no_word_is_shadowed(lexicon: Lexicon, examples: dict[str, list[str]]) -> None:
    """Each is in a sentence of its own and is found there as what it is."""
    shadowed = [
        (name, word)
        for name, words in examples.items()
        for word in words
        if name not in find_mentions(lexicon.folder.fold(word), lexicon).names()
    ]
    assert not shadowed, shadowed


@NOT_TRACED
def test_every_sign_can_be_denied(lexicon: Lexicon, examples: dict[str, list[str]]) -> None:
    spared = [
        (name, word)
        for name, words in examples.items()
        for word in words
        if name.startswith(POLAR)
        and name not in denied(f"{'without ' if word.isascii() else '否认'}{word}", lexicon)
    ]
    assert not spared, spared


@pytest.mark.parametrize("name", MEASURED)
def test_every_measure_is_read(name: str) -> None:
    assert name in {found for _, _, found in measures(MEASURED[name])}


def test_every_class_is_defined_and_used(lexicon: Lexicon) -> None:
    defined = {pattern.name for pattern in lexicon.words} | {made.name for made in lexicon.compounds}
    used = {name for rule in lexicon.rules for names in (*rule.all, rule.unless) for name in names}
    used |= {
        name
        for compound in lexicon.compounds
        for sequence in compound.sequences
        for names, _ in sequence.steps
        for name in names
    }
    assert used - defined - set(MEASURED) == set()
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "medchat" / "medical_safety").glob("*.py")
    )
    assert [name for name in sorted(defined - used) if f'"{name}"' not in source] == []


def sentences(rule: FlagRule, words: dict[str, list[str]], lexicon: Lexicon) -> Iterator[str]:
    """Yield sentences that hold all parts of a rule, one word of each class of each part."""
    longest = max(len(part) for part in rule.all)
    for at in range(longest):
        parts = [texts(part[min(at, len(part) - 1)], words, lexicon) for part in rule.all]
        for choice in range(12):
            yield "我妈突然" + "，".join(options[choice % len(options)] for options in parts) + "了"


def texts(name: str, words: dict[str, list[str]], lexicon: Lexicon) -> list[str]:
    """Return words of a class, or what makes the compound."""
    if name in words:
        return [word for word in words[name] if not word.isascii()] or words[name]
    if name in MEASURED:
        return [MEASURED[name]]
    (compound,) = (made for made in lexicon.compounds if made.name == name)
    parts = [texts(names[0], words, lexicon) for names, _ in compound.sequences[0].steps]
    return ["".join(options[choice % len(options)] for options in parts) for choice in range(12)]


@NOT_TRACED
def test_every_rule_fires_on_words_of_its_own(lexicon: Lexicon, examples: dict[str, list[str]]) -> None:
    dead = [
        rule.name
        for rule in lexicon.rules
        if not any(
            evidence.rule == rule.name
            for sentence in sentences(rule, examples, lexicon)
            for evidence in find_red_flags(sentence).evidence
        )
    ]
    assert dead == []


def test_every_file_and_rule_is_dated_and_has_a_source(lexicon: Lexicon) -> None:
    tables = lexicon_tables()
    assert len(tables) > 8
    assert [
        name
        for name, table in tables.items()
        if name != "traditional" and not isinstance(table["date"], date)
    ] == []
    assert [rule.name for rule in lexicon.rules if not isinstance(rule.reviewed, date)] == []
    assert len({rule.name for rule in lexicon.rules}) == len(lexicon.rules)


def cited(lexicon: Lexicon) -> Iterator[tuple[FlagRule, str]]:
    """Yield each document of each rule's source."""
    for rule in lexicon.rules:
        for document in rule.source.split("; "):
            yield rule, document


def test_every_source_names_a_document_and_its_year_or_says_that_it_has_none(lexicon: Lexicon) -> None:
    unnamed, undated, of_the_future = [], [], []
    for rule, document in cited(lexicon):
        years = [int(year) for year in YEAR.findall(document)]
        if len(re.sub(r"[\W\d_]", "", document)) < 5:
            unnamed.append((rule.name, document))
        if not years and not re.search(r"\(undated (?:page|fact sheet)\)", document):
            undated.append((rule.name, document))
        if any(year > rule.reviewed.year for year in years):
            of_the_future.append((rule.name, document))
    assert (unnamed, undated, of_the_future) == ([], [], [])


def test_no_document_is_cited_in_two_editions_without_saying_why(lexicon: Lexicon) -> None:
    editions: dict[str, set[str]] = {}
    for _, document in cited(lexicon):
        if (year := YEAR.search(document)) and "(not in " not in document:
            editions.setdefault(document[: year.start()], set()).add(year[0])
    assert len(editions) > 30
    assert {title: years for title, years in editions.items() if len(years) > 1} == {}


def test_notices_and_rules_belong_together(lexicon: Lexicon) -> None:
    of_weak_signs = {"possible-emergency"}
    assert {rule.notice for rule in lexicon.rules} | of_weak_signs == set(lexicon.notices)


def test_notices_are_short_call_the_number_they_say_and_hold_no_dose_and_no_blame(lexicon: Lexicon) -> None:
    for key, notice in lexicon.notices.items():
        assert len(notice.zh) <= 110, key
        assert len(notice.short_zh) <= 40, key
        assert len(notice.en) <= 330 and notice.en.isascii() and notice.short_en.isascii(), key
        for number in notice.calls.split():
            if number.isdigit():
                assert all(
                    number in text for text in (notice.zh, notice.en, notice.short_zh, notice.short_en)
                ), key
        texts_of_it = (notice.zh, notice.en, notice.short_zh, notice.short_en)
        assert not any(re.search(r"\d\s*(mg|毫克|片|粒|ml|毫升|克)", text) for text in texts_of_it), key
        assert not any(
            re.search("应该早|怎么不|不应该|你怎么|您怎么|责任|should have", text) for text in texts_of_it
        ), key


def test_the_table_of_traditional_characters_is_that_of_opencc() -> None:
    pytest.importorskip("opencc", reason="OpenCC is not installed")
    script = runpy.run_path(str(ROOT / "scripts" / "traditional_table.py"))
    from medchat.medical_safety.lexicon_files import lexicon_characters

    made = script["traditional_table"](lexicon_characters())
    assert script["TABLE"].read_text(encoding="utf-8") == made, "run scripts/traditional_table.py"
