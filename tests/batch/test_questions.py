"""Question files as people have them: which form they are in, what each record asks, where a bad one stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import SHARED

from medchat.api import Turn
from medchat.batch import Question, read_questions
from medchat.datafiles.forms import split_dialogue
from medchat.datafiles.record import text_value
from medchat.errors import CheckpointError, DataError
from medchat.templates import load_template

DATA = SHARED / "data"


def written(folder: Path, content: str | bytes, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def asked(folder: Path, *records: Any) -> tuple[Question, ...]:
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return read_questions(written(folder, content)).questions


@pytest.mark.parametrize(
    ("name", "form", "count", "key"),
    [
        ("infer.json", "lines", 5, "instruction"),
        ("liver_cancer.json", "array", 1000, "instruction"),
        ("cmcoqa_question.json", "array", 200, "question"),
        ("llama_data.json", "lines", 8658, "instruction"),
    ],
)
def test_published_files_are_read_whole_and_unchanged(name: str, form: str, count: int, key: str) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    found = read_questions(path)
    text = path.read_text(encoding="utf-8")
    records = json.loads(text) if form == "array" else [json.loads(line) for line in text.splitlines()]
    assert (found.form, len(found.questions), found.bad) == (form, count, ())
    assert [question.text for question in found.questions] == [record[key] for record in records]
    references = [record.get("output") for record in records]
    assert [question.asked.reference for question in found.questions] == references


def test_published_training_prompts_give_back_their_questions() -> None:
    path = DATA / "med_chatglm_train.txt"
    if not path.exists():
        pytest.skip("med_chatglm_train.txt is not on this machine")
    with path.open(encoding="utf-8") as file:
        contexts = [json.loads(line)["context"] for line in file]
    questions = read_questions(path).questions
    assert [f"问题：{question.text}\n回答: " for question in questions] == contexts


def test_dialogues_rendered_again_are_the_published_prompts() -> None:
    path = DATA / "liver_cancer.json"
    if not path.exists():
        pytest.skip("liver_cancer.json is not on this machine")
    template = load_template("literature_template")
    bare = load_template("literature_template").render((), "\0")
    frame = "".join(part.text for part in bare).split(" <user>: \0")
    turns = 0
    for question in read_questions(path).questions:
        rendered = "".join(part.text for part in template.render(question.turns, question.asked.last))
        assert rendered == frame[0] + question.text + frame[1]
        turns += len(question.turns)
    assert turns > 1000


WORDS = st.text(st.characters(exclude_characters="<\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(WORDS, WORDS)), WORDS)
def test_a_dialogue_is_taken_apart_and_nothing_is_lost(pairs: list[tuple[str, str]], last: str) -> None:
    text = "".join(f" <user>: {question} <bot>: {answer}" for question, answer in pairs)
    said = [words for pair in pairs for words in pair]
    assert split_dialogue(f"{text} <user>: {last}") == (*said, last)


def test_the_demos_own_spacing_is_understood_too() -> None:
    assert split_dialogue("<user>: 甲 <bot>: 乙。<user>: 丙") == ("甲", "乙。", "丙")
    assert text_value("<user>: 甲").last == "甲"


@pytest.mark.parametrize(
    "text", ["头痛", "见 <user>: 头痛", " <user>: 头痛 <bot>: 休息", " <user>: a <user>: b"]
)
def test_a_text_that_is_no_dialogue_stays_as_it_is(text: str) -> None:
    assert split_dialogue(text) == ()
    assert (text_value(text).last, text_value(text).is_dialogue) == (text, False)


FORMS = [
    ({"question": "头痛", "answer": "休息"}, "休息"),
    ({"instruction": "头痛", "input": "", "output": "休息", "id": 7}, "休息"),
    ({"query": "头痛", "response": "休息"}, "休息"),
    ({"content": "头痛", "summary": "休息"}, "休息"),
    ({"context": "问题：头痛\n回答: ", "target": "休息"}, "休息"),
    ({"messages": [{"role": "user", "content": "头痛"}, {"role": "assistant", "content": "休息"}]}, "休息"),
    ({"conversations": [{"from": "human", "value": "头痛"}]}, None),
    ("头痛", None),
]


@pytest.mark.parametrize(("record", "reference"), FORMS)
def test_every_published_form_of_record_asks_the_same(tmp_path: Path, record: Any, reference: Any) -> None:
    (question,) = asked(tmp_path, record)
    assert (question.text, question.asked.last, question.asked.reference) == ("头痛", "头痛", reference)


def test_messages_and_histories_become_turns_and_a_system_text(tmp_path: Path) -> None:
    said = [("system", "简短"), ("user", "一"), ("assistant", "二"), ("user", "三")]
    messages = [{"role": role, "content": text} for role, text in said]
    with_history = {"content": "三", "history": [["一", "二"]], "system": "简短"}
    for question in asked(tmp_path, {"messages": messages}, with_history):
        assert question.turns == (Turn("一", "二"),)
        assert (question.asked.last, question.asked.system) == ("三", "简短")


def test_what_a_record_holds_besides_is_kept(tmp_path: Path) -> None:
    (question,) = asked(tmp_path, {"question": "头痛", "input": "三天", "id": "a-1", "ICD-10": "G44", "n": 3})
    assert (question.asked.id, question.asked.input) == ("a-1", "三天")
    assert question.asked.extra == {"ICD-10": "G44", "n": 3}


@pytest.mark.parametrize(
    "record",
    [
        7,
        {},
        {"question": 7},
        {"question": "  "},
        {"question": "a", "input": 3},
        {"output": "only an answer"},
        {"messages": []},
        {"messages": "no list"},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": " "}]},
        {"messages": [{"role": "tool", "content": "a"}]},
        {"question": "a", "history": ["no pair"]},
        {"question": "a\ud800"},
    ],
)
def test_a_record_that_asks_nothing_is_bad_and_the_others_are_not(tmp_path: Path, record: Any) -> None:
    lines = [json.dumps(value) for value in ({"question": "一"}, record, {"question": "三"})]
    found = read_questions(written(tmp_path, "\n".join(lines)))
    assert [bad.line for bad in found.bad] == [2]
    assert found.bad[0].reason
    assert [(question.index, question.line) for question in found.questions] == [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    "line", ["{", '{"question": "头痛"', "头痛", '{"question": NaN}', "[" * 100_000, '{"a": 1} {"b": 2}']
)
def test_a_broken_line_is_named_and_the_rest_is_read(tmp_path: Path, line: str) -> None:
    found = read_questions(written(tmp_path, f'{{"question": "一"}}\n\n{line}\n{{"question": "四"}}\n'))
    assert [bad.line for bad in found.bad] == [3]
    assert [question.text for question in found.questions] == ["一", "四"]


def test_a_line_that_is_not_utf8_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = ['{"question": "一"}'.encode(), '{"question": "感冒"}'.encode("gb18030"), b'{"question": "3"}']
    found = read_questions(written(tmp_path, b"\r\n".join(lines)))
    assert [bad.line for bad in found.bad] == [2]
    assert [question.text for question in found.questions] == ["一", "3"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n{"question": "一"},\n{"question": }\n]', 3),
        ('[\n{"question": "一"}\n{"question": "二"}]', 3),
        ('[{"question": "一"},\n', 2),
        ('[{"question": "一"}]\n\nmore', 3),
        ('[{"question":\n"一', 2),
        ("[" * 100_000, 1),
    ],
)
def test_an_array_that_breaks_off_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = written(tmp_path, text, "data.json")
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert caught.value.where == f"{path}:{line}"


def test_an_array_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, '[\n"感冒"]'.encode("gb18030"), "data.json")
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert caught.value.where == f"{path}:2"
    assert "iconv" in caught.value.remedy


@pytest.mark.parametrize("name", ["data.json", "data.jsonl", "data.txt", "data"])
def test_json_is_recognised_by_what_it_is_not_by_its_name(tmp_path: Path, name: str) -> None:
    for content in ('[{"question": "一"}, "二"]', '{"question": "一"}\n"二"\n', '\ufeff[\n"一",\n"二"]'):
        found = read_questions(written(tmp_path, content, name))
        assert [question.text for question in found.questions] == ["一", "二"]


def test_one_object_over_several_lines_is_one_question(tmp_path: Path) -> None:
    found = read_questions(written(tmp_path, json.dumps({"question": "一"}, indent=2), "data.json"))
    assert [question.text for question in found.questions] == ["一"]


def test_plain_text_is_a_question_a_line_whatever_it_begins_with(tmp_path: Path) -> None:
    lines = ["[急] 头痛怎么办？", "", "{这是什么}", "含\u2028行\x85分\x0b隔", "  前后空格 "]
    found = read_questions(written(tmp_path, "\r\n".join(lines), "questions.txt"))
    assert found.form == "text"
    assert [question.text for question in found.questions] == [line for line in lines if line]
    assert [question.line for question in found.questions] == [1, 3, 4, 5]


@pytest.mark.parametrize("content", ["", "\n \n", "[]", "\ufeff"])
def test_a_file_without_questions_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError):
        read_questions(written(tmp_path, content, "data.json"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CheckpointError) as caught:
            read_questions(path)
        assert caught.value.where == str(path)
