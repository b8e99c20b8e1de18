"""What a record asks and answers, in the forms that makers of data have."""

from __future__ import annotations

from typing import Any

import pytest
from data_records import A, Q, human, model

from medchat.datafiles.fields import RecordError
from medchat.datafiles.record import parse_record

#: Records that ask Q and are answered by A, with the form that they are treated as.
SAME: list[tuple[dict[str, Any], str]] = [
    ({"query": Q, "reply": A}, "pairs"),
    ({"问": Q, "答": A}, "pairs"),
    ({"Question": Q, "ANSWER": A}, "pairs"),
    ({" question ": Q, "answer": A}, "pairs"),
    ({"problem": Q, "completion": A}, "pairs"),
    ({"input": Q, "output": A}, "pairs"),
    ({"instruction": "  ", "input": Q, "output": A}, "pairs"),
    ({"prompt": None, "query": Q, "response": A}, "pairs"),
    ({"question": Q, "answer": A, "reference": "《内科学》第 9 版"}, "pairs"),
    ({"question": Q, "reference": A}, "pairs"),
    ({"context": Q, "answer": A}, "pairs"),
    ({"questions": [Q], "answers": [A]}, "wordings"),
    ({"questions": Q, "answers": A}, "wordings"),
    ({"Messages": [human(Q), model(A)]}, "messages"),
    ({"messages": [human(Q, "USER"), model(A, "Model")]}, "messages"),
    ({"messages": [human(Q, "<|user|>"), model(A, "<|assistant|>")]}, "messages"),
    ({"conversations": [{"from": "患者", "value": Q}, {"from": "医生", "value": A}]}, "sharegpt"),
    ({"conversation": [{"speaker": "Patient", "text": Q}, {"speaker": "Doctor", "text": A}]}, "conversation"),
    ({"conversation": [{"human": Q, "assistant": A}]}, "conversation"),
    ({"conversation": [{"input": Q, "output": A, "system": ""}]}, "conversation"),
    ({"dialogue": [[Q, A]]}, "conversation"),
    ({"data": [Q, A]}, "conversation"),
    ({"data": [f"Human: {Q}", f"Assistant:{A}"]}, "conversation"),
    ({"utterances": [f"病人：{Q}", f"医生： {A}"]}, "conversation"),
    (
        {"contents": [{"role": "user", "parts": [{"text": Q}]}, {"role": "model", "parts": [A]}]},
        "conversation",
    ),
    ({"messages": [human(Q)], "answer": A}, "messages"),
    ({"turns": 1, "question": Q, "answer": A}, "pairs"),
    ({"case": "病历", "first_question": Q, "answer": A}, "pairs"),
    ({"QA_pairs": [{"question": Q, "answer": A}]}, "cmb-clin"),
    ({"QA_pairs": [{"question": Q, "solution": A}]}, "cmb-clin"),
    ({"input": f"{Q}\n答：", "target": A, "sample_id": "dev-1"}, "promptcblue"),
    ({"input": Q, "target": A, "sample_id": "dev-1"}, "promptcblue"),
]


@pytest.mark.parametrize(("record", "form"), SAME, ids=lambda value: str(value)[:60])
def test_one_question_and_its_answer_in_the_forms_of_many_makers(record: dict[str, Any], form: str) -> None:
    asked = parse_record(record)
    assert (asked.text, asked.last, asked.reference, asked.form) == (Q, Q, A, form)
    assert (asked.turns, asked.input, asked.system) == ((), "", "")
    assert set(asked.extra) == {name for name in record if name in ("reference", "turns", "case")} - {
        name for _, name in asked.used
    }


CASE = "男，49 岁，右下腹痛 3 小时。"


@pytest.mark.parametrize("name", ["description", "Description", "背景"])
def test_a_case_stands_before_its_first_question_and_every_answer_is_learned(name: str) -> None:
    pairs = [{"question": Q, "solution": A}, {"question": "怎样治疗？", "answer": "手术。"}]
    asked = parse_record({"id": 0, "title": "病例", name: CASE, "QA_pairs": pairs})
    assert [(turn.question, turn.answer) for turn in asked.turns] == [(f"{CASE}\n{Q}", A)]
    assert (asked.last, asked.reference, asked.id, asked.unused) == ("怎样治疗？", "手术。", 0, ("title",))
    assert asked.is_conversation and not asked.unlearned
    assert parse_record({"QA_pairs": pairs[:1], name: CASE}).last == f"{CASE}\n{Q}"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"QA_pairs": "一问一答"}, "QA_pairs 应当是一个列表"),
        ({"QA_pairs": [3]}, "QA_pairs 第 1 条"),
        (
            {"QA_pairs": [{"question": Q, "answer": A}, {"answer": A}]},
            "QA_pairs 第 2 条：应当是一个问题和它的答案",
        ),
        (
            {"QA_pairs": [{"question": Q}, {"question": Q, "answer": A}]},
            "QA_pairs 第 1 条：应当是一个问题和它的答案",
        ),
        ({"QA_pairs": [{"question": Q, "answer": {"A": 1}}]}, "QA_pairs 第 1 条：内容应当是文本"),
        ({"QA_pairs": [{"question": Q, "answer": A}], "description": [CASE]}, "description 应当是文本"),
        ({"QA_pairs": []}, "没有问题字段"),
        ({"input": "\n答：", "target": A, "sample_id": 1}, "问题是空的"),
        ({"input": ["甲"], "target": A, "sample_id": 1}, "input 应当是文本"),
    ],
)
def test_a_broken_case_or_task_is_named_by_its_field_and_pair(record: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        parse_record(record)


def test_the_number_of_a_sample_is_an_id_only_where_there_is_no_other() -> None:
    assert parse_record({"question": Q, "id": 1, "sample_id": 2}).id == 1
    assert parse_record({"question": Q, "sample_id": 2}).id == 2


def test_what_stands_beside_the_question_goes_where_it_belongs() -> None:
    patient = "男，50 岁，血压 180/110。"
    for name in ("context", "Background", "材料"):
        asked = parse_record({name: patient, "question": Q, "answer": A})
        assert asked.last == asked.text == f"{patient}\n{Q}" and (asked.input, asked.reference) == ("", A)
        assert asked.unused == ()
    asked = parse_record({"Input": patient, "question": Q, "answer": A, "context": "三天"})
    assert (asked.last, asked.input, asked.unused) == (f"三天\n{Q}", patient, ())
    asked = parse_record({"system_prompt": "你是医生", "input": Q, "context": patient, "target": A})
    assert (asked.last, asked.input, asked.system) == (f"{patient}\n{Q}", "", "你是医生")


OPTIONS = "A. 青霉素\nB. 硝苯地平"


@pytest.mark.parametrize(
    "options",
    [
        {"options": {"A": "青霉素", "B": "硝苯地平"}},
        {"choices": ["青霉素", "硝苯地平"]},
        {"选项": OPTIONS},
        {"options": [{"key": "A", "value": "青霉素"}, {"key": "B", "value": "硝苯地平"}]},
        {"A": "青霉素", "B": "硝苯地平"},
    ],
)
def test_the_options_of_a_multiple_choice_are_asked_with_it(options: dict[str, Any]) -> None:
    asked = parse_record({"question": Q, **options, "answer": "B"})
    assert (asked.last, asked.text, asked.reference) == (f"{Q}\n{OPTIONS}",) * 2 + ("B",)
    assert asked.unused == ()


def test_options_of_another_kind_are_named_as_unused() -> None:
    asked = parse_record({"question": Q, "answer": A, "options": {"temperature": 0.1}})
    assert (asked.last, asked.unused) == (Q, ("options",))
    asked = parse_record({"question": Q, "answer": "A", "A": "alone", "C": "neither"})
    assert (asked.last, asked.unused) == (Q, ("A", "C"))


@pytest.mark.parametrize(
    "names",
    [("user", "assistant"), ("Human", "Bot"), ("病人", "医生"), ("patient", "doctor"), ("source", "target"),
     ("src", "tgt"), ("Q", "A"), ("q", "a")],
)  # fmt: skip
def test_two_fields_named_after_the_two_sides_are_a_question_and_its_answer(names: tuple[str, str]) -> None:
    asked = parse_record({"id": 7, names[0]: Q, names[1]: A, "date": "2023"})
    assert (asked.last, asked.reference, asked.id, asked.unused) == (Q, A, 7, ("date",))


@pytest.mark.parametrize(
    "record",
    [
        {"user": "u17", "text": Q},  # who asked
        {"user": "u17", "patient": Q, "doctor": A},
        {"source": "https://example.org", "title": Q},
        {"q": Q, "a": "青霉素", "b": "硝苯地平"},
        {"assistant": A},
        {"user": {"name": "u17"}, "assistant": A},
    ],
)
def test_one_side_alone_or_two_of_one_side_ask_nothing(record: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="没有问题字段") as caught:
        parse_record(record)
    assert "--question-field" in caught.value.remedy


def test_a_question_by_name_goes_before_the_two_sides() -> None:
    asked = parse_record({"question": Q, "user": "u17", "doctor": "王医生", "answer": A})
    assert (asked.last, asked.reference, asked.unused) == (Q, A, ("user", "doctor"))


@pytest.mark.parametrize("completion", [A, [{"role": "assistant", "content": A}]])
def test_a_prompt_of_messages_with_its_completion_is_a_conversation(completion: Any) -> None:
    said = [{"role": "system", "content": "你是医生"}, {"role": "user", "content": "发热"},
            {"role": "assistant", "content": "多喝水"}, {"role": "user", "content": Q}]  # fmt: skip
    asked = parse_record({"prompt": said, "completion": completion})
    assert (asked.last, asked.reference, asked.system, asked.unused) == (Q, A, "你是医生", ())
    assert [turn.answer for turn in asked.turns] == ["多喝水"]


@pytest.mark.parametrize("value", [["一？", "二？"], {"0": "一？"}])
def test_a_field_that_holds_many_texts_is_refused_with_what_a_record_is(value: Any) -> None:
    with pytest.raises(RecordError, match="question") as caught:
        parse_record({"question": value, "answer": value})
    assert "一条记录一个对象" in caught.value.remedy


def test_every_wording_of_a_question_is_known() -> None:
    for questions in ([Q, "头疼"], [[Q, "头疼"]]):
        asked = parse_record({"questions": questions, "answers": [A]})
        assert (asked.last, asked.wordings, asked.reference) == (Q, ("头疼",), A)


@pytest.mark.parametrize(
    ("questions", "asked"),
    [
        ([["一？", "二？"]], ["一？", "二？"]),
        ([["一？"], ["二？", "三？"]], ["一？", "二？", "三？"]),
        (["一？", ["二？"]], ["一？", "二？"]),
    ],
)
def test_wordings_in_several_lists_all_ask_for_the_one_answer(questions: list[Any], asked: list[str]) -> None:
    read = parse_record({"questions": questions, "answers": [A]})
    assert ([read.last, *read.wordings], read.reference, read.form) == (asked, A, "wordings")


@pytest.mark.parametrize("questions", [[["一？"], ["二？"]], ["一？", "二？"], [["一？", "二？"]]])
def test_several_answers_are_refused_with_their_number(questions: list[Any]) -> None:
    with pytest.raises(RecordError, match="answers 里有 2 个答案"):
        parse_record({"questions": questions, "answers": ["休息。", "吃药。"]})


def test_the_options_of_the_chinese_medical_benchmark_are_under_the_question() -> None:
    read = parse_record({"question": Q, "option": {"A": "休息", "B": "熬夜"}, "answer": "A"})
    assert read.last == f"{Q}\nA. 休息\nB. 熬夜"
