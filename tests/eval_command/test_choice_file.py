"""Files of choice questions: every published form is read alike, and what is none is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from locations import SHARED
from medchat_eval.choice_file import ChoiceFile, read_answers, read_choice_file

from medchat.errors import DataError

QUESTION, OPTIONS = "壁胸膜的分部不包括", ("肋胸膜", "肺胸膜", "膈胸膜", "胸膜顶")
BY_LETTER = dict(zip("ABCD", OPTIONS, strict=True))
LINES = "\n".join(f"{letter} {text}" for letter, text in BY_LETTER.items())

FORMS: dict[str, tuple[str, str]] = {
    "CMB-Exam": (
        "cmb.json",
        json.dumps(
            [
                {
                    "exam_type": "医师考试",
                    "exam_subject": "解剖",
                    "question_type": "单项选择题",
                    "question": QUESTION,
                    "option": {**BY_LETTER, "E": ""},
                    "answer": "B",
                }
            ],
            ensure_ascii=False,
        ),
    ),
    "CMExam": ("cmexam.csv", f'Question,Options,Answer,Explanation\n{QUESTION},"{LINES}",B,"脏、壁两层"\n'),
    "CMMLU": ("解剖.csv", f",Question,A,B,C,D,Answer\n0,{QUESTION},{','.join(OPTIONS)},B\n"),
    "C-Eval": (
        "解剖.csv",
        f"id,question,A,B,C,D,answer,explanation\n0,{QUESTION},{','.join(OPTIONS)},B,见书\n",
    ),
    "MedQA, an object": (
        "解剖.jsonl",
        json.dumps({"question": QUESTION, "options": BY_LETTER, "answer": "肺胸膜", "answer_idx": "B"}),
    ),
    "MedQA, a list": (
        "解剖.jsonl",
        json.dumps(
            {
                "question": QUESTION,
                "options": [{"key": key, "value": text} for key, text in BY_LETTER.items()],
                "answer": "肺胸膜",
            }
        ),
    ),
    "a list of texts": (
        "own.jsonl",
        json.dumps({"subject": "解剖", "question": QUESTION, "options": OPTIONS, "answer": "Ｂ"}),
    ),
    "numbered keys": (
        "解剖.jsonl",
        json.dumps(
            {
                "question": QUESTION,
                "options": dict(zip("1234", OPTIONS, strict=True)),
                "answer": "2",
            }
        ),
    ),
}


def read(folder: Path, name: str, text: str, **options: Any) -> ChoiceFile:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_choice_file(path, **options)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_question(form: str, tmp_path: Path) -> None:
    (item,) = read(tmp_path, *FORMS[form]).items
    assert (item.question, item.options, item.letters, item.several) == (QUESTION, OPTIONS, "B", False)
    assert item.subject in ("解剖", "cmexam")


@pytest.mark.parametrize(
    ("answer", "letters"),
    [("ABD", "ABD"), ("D,A", "AD"), ("A、C", "AC"), (["B", "C"], "BC"), ("Ａ Ｂ", "AB")],
)
def test_several_right_options_are_a_set(answer: Any, letters: str, tmp_path: Path) -> None:
    record = {"question": QUESTION, "options": BY_LETTER, "answer": answer}
    (item,) = read(tmp_path, "own.jsonl", json.dumps(record)).items
    assert (item.letters, item.several) == (letters, True)


def test_a_question_with_several_right_options_may_have_one_alone(tmp_path: Path) -> None:
    record = {"question": QUESTION, "question_type": "多项选择题", "option": BY_LETTER, "answer": "B"}
    (item,) = read(tmp_path, "cmb.jsonl", json.dumps(record)).items
    assert item.several


def test_options_may_run_over_several_lines(tmp_path: Path) -> None:
    text = 'Question,Options,Answer\n问,"A. 一\n续行\n(B) 二\nC、三",C\n'
    (item,) = read(tmp_path, "cmexam.csv", text).items
    assert item.options == ("一\n续行", "二", "三") and item.letters == "C"


BAD = {
    "no answer": ({"question": "问", "options": ["一", "二"]}, "没有答案"),
    "an answer that is no option": ({"question": "问", "options": ["一", "二"], "answer": "C"}, "“C”"),
    "one option": ({"question": "问", "options": ["一"], "answer": "A"}, "1 个选项"),
    "no question": ({"options": ["一", "二"], "answer": "A"}, "没有问题"),
    "no object": (["一"], "JSON 对象"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_record_is_named_and_may_be_passed_over(fault: str, tmp_path: Path) -> None:
    record, reason = BAD[fault]
    good = json.dumps({"question": QUESTION, "options": BY_LETTER, "answer": "B"})
    text = f"{good}\n{json.dumps(record)}\n"
    with pytest.raises(DataError, match=reason) as raised:
        read(tmp_path, "own.jsonl", text)
    assert raised.value.where.endswith("own.jsonl:2")
    kept = read(tmp_path, "own.jsonl", text, skip_bad=True)
    assert len(kept.items) == 1 and [bad.line for bad in kept.bad] == [2]


def test_answers_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    by_id = tmp_path / "answers.json"
    by_id.write_text(json.dumps([{"id": 7, "answer": "D"}, {"id": 8, "answer": "A"}]), encoding="utf-8")
    records = [{"id": number, "question": QUESTION, "option": BY_LETTER} for number in (8, 7)]
    file = read(tmp_path, "test.json", json.dumps(records), answers=read_answers(by_id))
    assert [item.letters for item in file.items] == ["A", "D"]


def test_a_file_of_answers_alone_is_told_apart_from_questions(tmp_path: Path) -> None:
    published = [{"id": 1, "exam_type": "医师考试", "question_type": "单项选择题", "answer": "D"}]
    with pytest.raises(DataError, match="--answers"):
        read(tmp_path, "answers.json", json.dumps(published))
    with pytest.raises(DataError, match="没有问题") as raised:
        read(tmp_path, "test.json", json.dumps([{"id": 1, "option": BY_LETTER, "answer": "D"}]))
    assert "--answers" not in raised.value.what


@pytest.mark.parametrize("name", ["college_medicine", "anatomy", "traditional_chinese_medicine"])
def test_published_files_are_read_whole(name: str) -> None:
    folder = SHARED / "data" / "samples"
    if not folder.is_dir():
        pytest.skip("no published samples here")
    file = read_choice_file(folder / f"cmmlu_{name}_test20.csv")
    assert len(file.items) == 20 and all(len(item.options) == 4 for item in file.items)
    assert {item.subject for item in file.items} == {f"cmmlu_{name}_test20"}


def test_the_licence_that_records_name_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    record = {"question": "问？", "options": ["甲", "乙"], "answer": "A"}
    path.write_text(json.dumps(record), encoding="utf-8")
    assert "license" not in read_choice_file(path).facts
    rows = [record | {"license": name} for name in ("CC BY-NC-SA 4.0", "MIT", "MIT")]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert read_choice_file(path).facts["license"] == ["CC BY-NC-SA 4.0", "MIT"]
