"""Files of open questions that others publish: PromptCBLUE's generation tasks and the cases of CMB-Clin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from medchat_eval.open_file import read_open_file

from medchat.errors import DataError

CASE = {
    "id": 7,
    "title": "病例",
    "description": "女，30 岁，发热、咳嗽 3 天。",
    "QA_pairs": [
        {"question": "诊断？", "solution": "肺炎。"},
        {"question": "检查？", "answer": "胸片。"},
        {"question": "治疗？", "solution": "抗感染。"},
    ],
}


def task(kind: Any, number: int = 0, **others: Any) -> dict[str, Any]:
    return {
        "input": f"患者：第 {number} 次发热。\n请写出医生的下一句。\n答：",
        "target": "多喝水。",
        "answer_choices": None,
        "task_type": kind,
        "task_dataset": "MedDG",
        "sample_id": f"dev-{number}",
        **others,
    }


def written(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in records), encoding="utf-8")
    return path


def test_each_question_about_a_case_is_asked_after_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "CMB-Clin-qa.json"
    path.write_text(json.dumps([CASE, {**CASE, "id": 8}], ensure_ascii=False, indent=1), encoding="utf-8")
    items = read_open_file(path).items
    assert [item.id for item in items] == [f"{case}/{at}" for case in (7, 8) for at in (1, 2, 3)]
    first, second, third = items[:3]
    assert (first.question, first.turns) == (f"{CASE['description']}\n诊断？", ())
    assert (second.question, second.reference) == ("检查？", "胸片。")
    assert [(turn.question, turn.answer) for turn in third.turns] == [
        (first.question, "肺炎。"),
        ("检查？", "胸片。"),
    ]
    assert [item.id for item in read_open_file(path, limit=4).items] == ["7/1", "7/2", "7/3", "8/1"]


def test_of_promptcblue_the_generation_tasks_are_read_and_the_others_counted(tmp_path: Path) -> None:
    kinds = ["response_generation", "ner", "report_generation", "cls", "cls"]
    file = read_open_file(written(tmp_path / "dev.json", *(task(kind, at) for at, kind in enumerate(kinds))))
    assert [(item.id, item.reference) for item in file.items] == [
        ("dev-0", "多喝水。"),
        ("dev-2", "多喝水。"),
    ]
    assert file.items[0].question == "患者：第 0 次发热。\n请写出医生的下一句。"
    assert file.facts["left_out"] == {"ner": 1, "cls": 2}


@pytest.mark.parametrize(
    ("records", "line", "said"),
    [
        ((task("report_generation"), task(None, 1)), 2, "task_type"),
        ((task("report_generation"), task(["ner"], 1)), 2, "task_type"),
        ((task("ner"), task("report_generation", input=3)), 2, "input"),
        ((CASE, {**CASE, "QA_pairs": [{"question": "诊断？"}, {"solution": "肺炎。"}]}), 2, "QA_pairs"),
        ((CASE, {**CASE, "description": {"年龄": 3}}), 2, "description"),
    ],
)
def test_a_record_that_is_neither_is_named_by_its_line(
    tmp_path: Path, records: tuple[Any, ...], line: int, said: str
) -> None:
    path = written(tmp_path / "bad.jsonl", *records)
    with pytest.raises(DataError, match=said) as raised:
        read_open_file(path)
    assert raised.value.where == f"{path}:{line}" and raised.value.remedy


def test_a_file_of_other_tasks_alone_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    path = written(tmp_path / "dev.json", *(task(f"{'类' * 99}{at}", at) for at in range(30)), task("ner"))
    with pytest.raises(DataError) as raised:
        read_open_file(path)
    assert len(raised.value.what) < 400 and "response_generation" in (raised.value.remedy or "")
