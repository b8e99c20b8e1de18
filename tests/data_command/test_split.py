"""`medchat data split`: every record once, no source in two parts, and the same parts for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, Outcome
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from knowledge_files import RECORDS, lines_of, write_lines
from medchat_data.splitting import LEFT_OUT, divided, sources_of

from medchat.plugin_kit import parse_record

pytest_plugins = ("cli_program",)

SHARES = {"train": 8.0, "dev": 1.0, "test": 1.0}


def pair(question: str, **fields: Any) -> dict[str, Any]:
    return {"instruction": question, "input": "", "output": "答。", **fields}


def split(call: Call, data: Path, *flags: str) -> Outcome:
    return call("data", "split", str(data), "--output", str(data.with_name("part")), *flags)


def parts_in(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.name.split(".")[1]: lines_of(path) for path in folder.glob("part.*.jsonl")}


@given(
    st.lists(st.frozensets(st.integers(0, 30).map(str), min_size=1, max_size=3), min_size=60, max_size=90),
    st.integers(0, 9),
)
@settings(max_examples=40)
def test_no_source_stands_in_two_parts(sources: list[frozenset[str]], seed: int) -> None:
    assume(len(frozenset().union(*sources)) >= len(SHARES))
    places = divided(sources, SHARES, seed)
    assert len(places) == len(sources) and places == divided(sources, SHARES, seed)
    held = {
        name: set().union(*(one for one, place in zip(sources, places, strict=True) if place == name))
        for name in SHARES
    }
    assert not (held["train"] & held["dev"] or held["train"] & held["test"] or held["dev"] & held["test"])
    assert all(len(one) > 1 for one, place in zip(sources, places, strict=True) if place == LEFT_OUT)


@pytest.mark.parametrize("seed", range(3))
def test_parts_have_their_shares(seed: int) -> None:
    places = divided([frozenset({str(number // 2)}) for number in range(1000)], SHARES, seed)
    assert [places.count(name) for name in SHARES] == pytest.approx([800, 100, 100], abs=4)


def test_another_seed_gives_other_parts() -> None:
    sources = [frozenset({str(number)}) for number in range(100)]
    assert divided(sources, SHARES, 0) != divided(sources, SHARES, 1)


def test_records_of_one_id_or_one_first_question_are_of_one_source() -> None:
    records = [
        pair("头痛怎么办？", id=1),
        pair("发烧怎么办？", id=1),
        pair("发烧怎么办？ ", id=2),
        pair("咳嗽怎么办？", id=2),
        pair("失眠怎么办？"),
        pair(" <user>: 失眠怎么办？ <bot>: 早睡。 <user>: 还有呢？"),
        pair("腹痛怎么办？", id=3),
    ]
    sources = sources_of((record, parse_record(record)) for record in records)
    assert len(set(sources[:4])) == 1 and sources[4] == sources[5]
    assert len(set(sources)) == 3


def test_what_was_built_is_divided_by_its_knowledge(call: Call, tmp_path: Path) -> None:
    records = [
        {**record, "中心词": f"{record['中心词']}{number}"} for number in range(8) for record in RECORDS
    ]
    data = tmp_path / "train.jsonl"
    call("data", "build", "kg", str(write_lines(tmp_path / "k.jsonl", records)), "--output", str(data))
    assert split(call, data).code == 0
    parts = parts_in(tmp_path)
    assert sum(map(len, parts.values())) == len(lines_of(data))
    known = {
        name: {source["sha256"] for row in rows for source in row["provenance"]["sources"]}
        for name, rows in parts.items()
        if name != LEFT_OUT
    }
    assert not (
        known["train"] & known["dev"] or known["train"] & known["test"] or known["dev"] & known["test"]
    )
    assert {row["provenance"]["form"] for row in parts[LEFT_OUT]} <= {"compare", "check"} and parts[LEFT_OUT]
    assert all((tmp_path / f"part.{name}.jsonl").stat().st_mode & 0o777 == 0o600 for name in parts)


def test_records_stay_as_they_are_and_in_their_order(call: Call, tmp_path: Path) -> None:
    records = [pair(f"问题{number}？", 备注={"甲": [number]}) for number in range(40)]
    data = write_lines(tmp_path / "data.jsonl", records)
    assert split(call, data, "--parts", "a=1,b=1").code == 0
    parts = parts_in(tmp_path)
    assert {name: len(rows) for name, rows in parts.items()} == {"a": 20, "b": 20}
    for rows in parts.values():
        assert rows == [record for record in records if record in rows]


@pytest.mark.parametrize(
    "parts", ["train", "train=0", "train=8,train=2", "left-out=1", "a/b=1", "train=-1", ""]
)
def test_parts_that_make_no_sense_are_refused(call: Call, tmp_path: Path, parts: str) -> None:
    data = write_lines(tmp_path / "data.jsonl", [pair("一？"), pair("二？")])
    refused = split(call, data, "--parts", parts)
    assert refused.code == 2 and "--parts" in refused.failure()[0] and parts_in(tmp_path) == {}


def test_too_few_sources_and_bad_records_leave_nothing_behind(call: Call, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [pair("一？"), pair("一？"), pair("二？")])
    assert split(call, data).code == 6 and parts_in(tmp_path) == {}
    write_lines(data, [pair("一？"), pair("二？"), {"instruction": ""}, pair("三？")])
    refused = split(call, data)
    assert refused.code == 6 and f"{data}:3" in refused.failure()[0] and parts_in(tmp_path) == {}


def test_where_one_part_is_there_already_none_is_written(call: Call, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [pair(f"问题{number}？") for number in range(20)])
    there = write_lines(tmp_path / "part.test.jsonl", [{"a": 1}])
    assert split(call, data).code == 2 and parts_in(tmp_path) == {"test": [{"a": 1}]}
    assert split(call, data, "--overwrite").code == 0 and lines_of(there) != [{"a": 1}]
