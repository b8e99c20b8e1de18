"""A field that stands twice in a JSON object: with two values nothing is guessed, with one it is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from medchat.batch import read_questions
from medchat.errors import DataError
from medchat.sft_job.data import read_training_data

GOOD = '{"question": "咳嗽？", "answer": "喝水。"}'
TWICE = {
    "answer": '{"question": "头痛？", "answer": "休息。", "answer": "吃药。"}',
    "question": '{"question": "头痛？", "answer": "休息。", "question": "发烧？"}',
    "content": '{"messages": [{"role": "user", "content": "头痛？", "content": "发烧？"}, '
    '{"role": "assistant", "content": "休息。"}]}',
    "output": '{"instruction": "头痛？", "output": "休息。", "output": ""}',
    "id": '{"question": "头痛？", "answer": "休息。", "id": 1, "id": true}',
    "来源": '{"question": "头痛？", "answer": "休息。", "来源": [1], "来源": [2]}',
}
LAYOUTS = {
    "lines": f"{GOOD}\n%s\n{GOOD}\n",
    "array": f"[\n%s,\n{GOOD}\n]",
    "one line": f"[{GOOD}, %s, {GOOD}]",
    "objects": GOOD.replace(", ", ",\n") + " %s",
    "lists": f'{{"data": [{GOOD},\n%s]}}',
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TWICE)
def test_two_values_are_a_bad_record_with_its_line_and_the_fields_name(
    tmp_path: Path, name: str, layout: str
) -> None:
    path = tmp_path / "data.json"
    path.write_text(LAYOUTS[layout] % TWICE[name], encoding="utf-8")
    with pytest.raises(DataError, match=f"字段 {name} 写了两次") as caught:
        read_training_data(path)
    line = 1 if layout == "one line" else 2
    assert caught.value.where.startswith(f"{path}:{line}") and "--skip-bad" in caught.value.remedy
    assert {example.question for example in read_training_data(path, skip_bad=True).examples} == {"咳嗽？"}
    (bad,) = read_questions(path).bad
    assert bad.line == line and name in bad.reason


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_value_twice_is_one_value(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "data.json"
    same = '{"question": "头痛？", "answer": "休息。", "answer": "休息。"}'
    path.write_text(LAYOUTS[layout] % same, encoding="utf-8")
    assert "头痛？" in {example.question for example in read_training_data(path).examples}


def test_a_first_record_with_two_values_does_not_hide_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text(f"{TWICE['answer']}\n{GOOD}\n", encoding="utf-8")
    assert [len(read_questions(path).questions), len(read_questions(path).bad)] == [1, 1]
    assert read_questions(path).form == "lines"
