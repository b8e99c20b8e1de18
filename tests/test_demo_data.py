"""The demo's questions and answers: complete, cautious, sourced, and refused when damaged."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections import Counter
from datetime import date
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT

from medchat import demo_data
from medchat.demo_data import DemoPair, demo_examples, read_pairs
from medchat.errors import DataError

pytestmark = pytest.mark.safety

LINES = (ROOT / "medchat/data/demo_qa.jsonl").read_text(encoding="utf-8").splitlines()
PAIRS = demo_examples()

NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|[一二两三四五六七八九十百半几]+)"
DOSES = (
    rf"{NUMBER}\s*(?:毫克|微克|毫升|mg|ml|μg|IU|国际单位|单位|片|粒|颗|丸|滴|支|袋|包|瓶|勺|胶囊|剂)",
    rf"(?:每天|每日|一天|一日)[^，。；：]{{0,2}}{NUMBER}次|日服?{NUMBER}次|{NUMBER}次[/／每](?:日|天)",
    rf"[每隔]{NUMBER}(?:个)?(?:小时|天)(?:吃|服|用|喂|打|一次)",
    r"每公斤|每千克",
)
#: Grams are a dietary quantity (salt, sugar, vegetables) and have no place anywhere else.
GRAMS = rf"{NUMBER}\s*克"

PUNCTUATION = set("，。、；：？！“”（）")
#: Words that mean a life may be at risk now. A pair that uses one must say whom to call.
DANGER = re.compile(
    "喘不上气|呼吸困难|叫不醒|昏迷|神志不清|没有(?:正常)?呼吸|大出血|胸痛|中风了|触电|抽搐|催吐|不想活"
)
PUBLISHER_HOSTS = {
    "www.gov.cn", "www.who.int", "www.cdc.gov", "www.nice.org.uk", "cpr.heart.org", "www.aao.org", "doi.org",
}  # fmt: skip


def doses_in(text: str) -> list[str]:
    return [found.group() for pattern in DOSES for found in re.finditer(pattern, text, re.IGNORECASE)]


def by_id(pair: DemoPair) -> str:
    return pair.id


def similarity(one: str, other: str) -> float:
    """Ratcliff-Obershelp likeness from 0 to 1, the same whichever text comes first."""
    return max(
        difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()
        for first, second in ((one, other), (other, one))
    )


# ---------------------------------------------------------------- the pairs


def test_the_demo_has_150_pairs_and_asks_nothing_twice() -> None:
    assert len(PAIRS) == 150
    assert len({pair.question for pair in PAIRS}) == 150
    assert len({pair.answer for pair in PAIRS}) == 150


@pytest.mark.parametrize("field, bound", [("question", 0.65), ("answer", 0.55)])
def test_no_two_pairs_are_near_duplicates(field: str, bound: float) -> None:
    texts = [getattr(pair, field) for pair in PAIRS]
    close = [(a, b) for a, b in itertools.combinations(texts, 2) if similarity(a, b) >= bound]
    assert not close


@pytest.mark.parametrize("pair", PAIRS, ids=by_id)
def test_a_pair_is_a_short_question_and_one_or_two_sentences(pair: DemoPair) -> None:
    assert len(pair.question) <= 24 and pair.question.endswith("？") and pair.question.count("？") == 1
    assert 25 <= len(pair.answer) <= 60
    assert pair.answer.endswith("。") and pair.answer.count("。") <= 2


@pytest.mark.parametrize("pair", PAIRS, ids=by_id)
def test_a_pair_uses_common_characters_and_full_width_punctuation_only(pair: DemoPair) -> None:
    """GB 2312 level 1 (lead bytes B0 to D7) is the standard's list of characters in common use."""
    text = re.sub(r"(?<=\d)\.(?=\d)", "", pair.question + pair.answer)
    strange = [c for c in text if not (c in PUNCTUATION or c in "0123456789" or is_common(c))]
    assert not strange


def is_common(character: str) -> bool:
    encoded = character.encode("gb2312", errors="replace")
    return len(encoded) == 2 and 0xB0 <= encoded[0] <= 0xD7


# ---------------------------------------------------------------- medical caution


@pytest.mark.parametrize("pair", PAIRS, ids=by_id)
def test_no_pair_names_a_dose(pair: DemoPair) -> None:
    assert doses_in(pair.question + pair.answer) == []
    if pair.topic != "饮食":
        assert not re.search(GRAMS, pair.answer)


@pytest.mark.parametrize(
    "dose",
    ["每次两片", "500毫克", "0.5 mg", "10ml", "一天三次", "每日服3次", "日服三次", "2次/日", "每6小时吃",
     "隔四小时一次", "半粒", "每公斤体重", "400国际单位", "滴两滴"],
)  # fmt: skip
def test_the_dose_rule_recognises_a_dose(dose: str) -> None:
    assert doses_in(f"发热时可以吃退热药，{dose}，饭后吃。")


@pytest.mark.parametrize("pair", PAIRS, ids=by_id)
def test_a_pair_about_an_emergency_names_120(pair: DemoPair) -> None:
    text = pair.question + pair.answer
    if pair.topic == "急救" or DANGER.search(text):
        assert "120" in text


def test_talk_of_suicide_or_a_mental_crisis_names_12356() -> None:
    crisis = [pair for pair in PAIRS if re.search("不想活|产后情绪|心理援助", pair.question + pair.answer)]
    assert len(crisis) >= 3
    assert all("12356" in pair.question + pair.answer for pair in crisis)


def test_no_number_is_promised_round_the_clock() -> None:
    assert not [pair for pair in PAIRS if re.search("24小时(?:服务|在线|有人)|全天|随时拨打", pair.answer)]


def test_see_a_doctor_is_said_where_it_matters_and_not_everywhere() -> None:
    endings = [
        pair for pair in PAIRS if re.search("(?:就医|医院|医生|检查|门诊看看)。$", pair.answer)
    ]  # a stock ending on every answer teaches people to skip it
    assert len(endings) <= len(PAIRS) // 6


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("pair", PAIRS, ids=by_id)
def test_a_pair_names_publisher_title_date_and_the_authors_last_pass(pair: DemoPair) -> None:
    assert re.fullmatch(r"[^《》]{2,}《[^《》]{2,}》", pair.source)
    assert "1999" <= pair.source_date <= pair.last_pass.isoformat()
    for year in re.findall(r"（(\d{4})", pair.source):
        assert int(pair.source_date[:4]) >= int(year) - 1  # a yearbook may come out the year before
    address = urlsplit(pair.source_url)
    assert not pair.source_url or (address.hostname in PUBLISHER_HOSTS and len(address.path) > 1)
    assert date(2026, 11, 20) <= pair.last_pass <= date.today()
    assert pair.author_passes >= 2


def test_one_source_has_one_date_and_one_address() -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    for pair in PAIRS:
        found.setdefault(pair.source, set()).add((pair.source_date, pair.source_url))
    assert not {source: several for source, several in found.items() if len(several) > 1}


def test_the_documented_table_of_sources_is_what_the_file_holds() -> None:
    page = (ROOT / "docs/demo-data.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.search(r"\| \d+ \|$", line)]
    counts = Counter((pair.source, pair.source_date, pair.source_url) for pair in PAIRS)
    expected = [
        f"| {source} | {day} | {f'<{url}>' if url else ''} | {count} |".replace("|  |", "| |")
        for (source, day, url), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    assert rows == expected
    assert f"{len(PAIRS)} pairs from {len(counts)} sources" in page


# ---------------------------------------------------------------- the loader


def test_the_file_is_read_whole_and_in_order() -> None:
    assert [json.loads(line)["question"] for line in LINES] == [pair.question for pair in PAIRS]
    assert [json.dumps(json.loads(line), ensure_ascii=False) for line in LINES] == LINES


@pytest.mark.parametrize(
    "key, value",
    [
        ("id", "demo-007"),
        ("topic", ""),
        ("question", "问" * 24 + "？"),
        ("question", 3),
        ("answer", "太短。"),
        ("answer", "长" * 60 + "。"),
        ("answer", None),
        ("source", " "),
        ("source_date", ""),
        ("source_date", "2024-13"),
        ("source_date", "2024-05-32"),
        ("source_date", "last year"),
        ("source_url", "http://example.org/page"),
        ("source_url", "https://example.org/"),
        ("source_url", "https://example.org"),
        ("source_url", "https:///page"),
        ("last_pass", "2026-11-31"),
        ("last_pass", "yesterday"),
        ("author_passes", 1),
        ("author_passes", True),
        ("author_passes", "2"),
    ],
)
def test_a_damaged_field_is_refused_with_its_line(key: str, value: object) -> None:
    record = json.loads(LINES[1])
    record[key] = value
    with pytest.raises(DataError) as refused:
        read_pairs([LINES[0], json.dumps(record, ensure_ascii=False), *LINES[2:]], "demo.jsonl")
    assert refused.value.where == "demo.jsonl:2"
    assert refused.value.exit_code == 6 and refused.value.remedy


@pytest.mark.parametrize("damage", ["", "[]", "7", '{"id": "demo-002"}', LINES[0], LINES[1][:-1]])
def test_a_line_that_is_not_the_next_pair_is_refused(damage: str) -> None:
    with pytest.raises(DataError) as refused:
        read_pairs([LINES[0], damage], "demo.jsonl")
    assert refused.value.where == "demo.jsonl:2"


@pytest.mark.parametrize("key", ["question", "answer"])
def test_a_text_that_comes_twice_is_refused(key: str) -> None:
    record = json.loads(LINES[1])
    record[key] = json.loads(LINES[0])[key]
    with pytest.raises(DataError) as refused:
        read_pairs([LINES[0], json.dumps(record, ensure_ascii=False)], "demo.jsonl")
    assert refused.value.where == "demo.jsonl:2" and record[key] in refused.value.what


@given(st.integers(0, len(LINES) - 1), st.data())
def test_a_file_cut_off_inside_a_line_is_refused(index: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(LINES[index]) - 1))
    with pytest.raises(DataError) as refused:
        read_pairs([*LINES[:index], LINES[index][:kept]], "demo.jsonl")
    assert refused.value.where == f"demo.jsonl:{index + 1}"


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(DataError):
        read_pairs([], "demo.jsonl")


def test_a_missing_file_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "PAIRS_FILE", "data/absent.jsonl")
    demo_examples.cache_clear()
    try:
        with pytest.raises(DataError) as refused:
            demo_examples()
    finally:
        demo_examples.cache_clear()
    assert refused.value.where == "medchat/data/absent.jsonl"
