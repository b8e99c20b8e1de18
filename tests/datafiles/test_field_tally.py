"""Which fields of a file were used, and which were not: counted, named, and listed in the docs."""

from __future__ import annotations

from data_records import A, Q
from locations import ROOT

from medchat.datafiles.fields import NAMES, WEAK_NAMES, is_field
from medchat.datafiles.record import parse_record
from medchat.datafiles.tally import MOST_NAMES, OTHERS, FieldTally
from medchat.language import set_language


def test_used_and_unused_fields_are_counted_over_a_file() -> None:
    set_language("en")
    tally = FieldTally()
    for record in (
        {"ask": Q, "answer": A, "title": "头痛"},
        {"ask": Q, "answer": A, "title": " "},
        {"query": Q},
    ):
        tally.add(parse_record(record))
    assert tally.by_use() == {"question": {"ask": 2, "query": 1}, "answer": {"answer": 2}}
    assert tally.unused == {"title": 1}
    assert list(tally.lines()) == [
        "fields: ask → question, answer → answer, query → question",
        "unused fields: title × 1",
    ]
    set_language("zh")
    assert list(tally.lines())[1] == "未使用的字段：title × 1"


def test_names_without_end_are_counted_together() -> None:
    tally = FieldTally()
    for number in range(MOST_NAMES + 50):
        tally.add(parse_record({"question": Q, f"patient {number}": "x"}))
    assert len(tally.unused) == MOST_NAMES + 1 and tally.unused[OTHERS] == 50
    (line,) = [line for line in tally.lines() if "patient" in line]
    assert len(line) < 400


def test_names_cannot_move_the_cursor() -> None:
    tally = FieldTally()
    tally.add(parse_record({"question": Q, "a\x1b[2J\nb": "x"}))
    assert "\x1b" not in "".join(tally.lines()) and "\n" not in "".join(tally.lines())


def test_the_page_names_every_field_that_means_something() -> None:
    page = (
        (ROOT / "docs" / "sft.md").read_text(encoding="utf-8").partition("## Data")[2].partition("\n## ")[0]
    )
    for names in (*NAMES.values(), *WEAK_NAMES.values()):
        for name in names:
            assert name == "id" or f"`{name}`" in page, name
    assert is_field("Question") and is_field(" 答案 ") and not is_field("title") and not is_field("options")
