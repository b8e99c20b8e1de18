"""The knowledge that is shipped: every record has its source, none names a dose, and all of it can be built from."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from cli_program import Call
from knowledge_files import lines_of
from medchat_data.knowledge import read_knowledge

pytest_plugins = ("cli_program",)

#: An amount of a medicine, or how often it is taken.
DOSE = re.compile(r"\d+\s*(?:毫克|克|毫升|片|粒|支|mg|ml|g\b)|每[日天]\s*\S?次|一[日天]\S次|[每一]次\S[片粒]")


@pytest.fixture
def sample(call: Call, tmp_path: Path) -> Path:
    path = tmp_path / "knowledge.jsonl"
    path.write_text(call("data", "sample").out, encoding="utf-8")
    return path


def test_the_sample_holds_forty_records_each_with_its_source(sample: Path) -> None:
    records = lines_of(sample)
    assert [record["id"] for record in records] == [f"kg-{number:03d}" for number in range(1, 41)]
    assert len({record["中心词"] for record in records}) == 40
    for record in records:
        assert re.fullmatch(r"(?:[^《》；]+《[^》]+》；?)+", record["来源"]), record["来源"]
        assert re.fullmatch(r"20\d\d(?:-\d\d){0,2}", record["来源日期"])
        assert not record["来源网址"] or re.fullmatch(r"https://www\.who\.int/zh/\S+/\S+", record["来源网址"])


def test_every_record_is_read_says_several_things_and_names_no_dose(sample: Path) -> None:
    file = read_knowledge(sample)
    assert len(file.records) == 40 and not file.bad
    for record in file.records:
        assert len(record.relations) >= 3
        said = [value for values in record.relations.values() for value in values]
        assert not [value for value in said if DOSE.search(value) or "," in value or " " in value], (
            record.centre
        )


@pytest.mark.parametrize("text", ["每次两片", "口服 20 毫克", "一日三次", "5mg", "每天1次"])
def test_a_dose_would_be_seen(text: str) -> None:
    assert DOSE.search(text)


@pytest.mark.safety
def test_an_emergency_among_the_records_sends_to_120(sample: Path) -> None:
    urgent = ("脑卒中", "急性心肌梗死", "热射病", "癫痫", "脑膜炎", "破伤风", "哮喘", "儿童肺炎")
    by_name = {record.centre: record for record in read_knowledge(sample).records}
    assert all("120" in by_name[name].relations["就医提示"][0] for name in urgent)
    assert "12356" in by_name["抑郁症"].relations["就医提示"][0]


@pytest.mark.safety
def test_every_misconception_is_set_right_and_nothing_else_is_denied(call: Call, sample: Path) -> None:
    wrong = [one for record in read_knowledge(sample).records for one in record.relations["常见误解"]]
    assert all(re.fullmatch("[^—]{4,}——其实[^—]{6,}", one) for one in wrong)
    output = sample.with_name("check.jsonl")
    for seed in range(4):
        words = ("--forms", "check", "--seed", str(seed), "--overwrite")
        assert call("data", "build", "kg", str(sample), "--output", str(output), *words).code == 0
        answers = [row["output"] for row in lines_of(output)]
        assert all(answer.startswith(("是。", "不对。其实")) for answer in answers)
        assert any(answer.startswith("不对。其实") for answer in answers)


def test_the_sample_makes_hundreds_of_records_of_every_form_and_rejects_none(
    call: Call, sample: Path
) -> None:
    output = sample.with_name("train.jsonl")
    assert call("data", "build", "kg", str(sample), "--output", str(output)).code == 0
    rows = lines_of(output)
    forms = Counter(row["provenance"]["form"] for row in rows)
    assert len(forms) == 6 and min(forms.values()) >= 30 and len(rows) >= 350
    assert output.with_name("train.rejects.jsonl").read_bytes() == b""
    texts = [row["instruction"] + row["output"] for row in rows]
    assert not [text for text in texts if re.search("。。|，，|、、|；。|：。|等等", text)]
    assert len({json.dumps(row["instruction"]) for row in rows}) == len(rows)
    opening_yes = sum(row["output"].startswith("是") for row in rows)
    assert opening_yes < len(rows) / 20
