"""What a record asks and answers, in the forms that makers of data have; what is unused; what is not guessed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT

from medchat.api import Turn
from medchat.datafiles.conversations import parse_conversation
from medchat.datafiles.fields import NAMES, WEAK_NAMES, FieldChoice, RecordError, is_field
from medchat.datafiles.record import QuestionRecord, parse_record
from medchat.datafiles.tally import MOST_NAMES, OTHERS, FieldTally
from medchat.language import set_language

Q, A = "头痛怎么办？", "多休息。"


def human(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def model(text: str, role: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


#: Records that ask Q and are answered by A, with the form that they are taken for.
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
]


@pytest.mark.parametrize(("record", "form"), SAME, ids=lambda value: str(value)[:60])
def test_one_question_and_its_answer_in_the_forms_of_many_makers(record: dict[str, Any], form: str) -> None:
    asked = parse_record(record)
    assert (asked.text, asked.last, asked.reference, asked.form) == (Q, Q, A, form)
    assert (asked.turns, asked.input, asked.system) == ((), "", "")
    assert set(asked.extra) == {name for name in record if name in ("reference", "turns")} - {
        name for _, name in asked.used
    }


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


def test_the_context_of_a_dialogue_stands_before_its_last_question() -> None:
    record = {
        "instruction": f" <user>: 一 <bot>: 二 <user>: {Q}",
        "context": "男",
        "output": A,
        "options": "A. 是",
    }
    asked = parse_record(record)
    assert (asked.turns, asked.last, asked.is_dialogue) == ((Turn("一", "二"),), f"男\n{Q}\nA. 是", False)


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


def test_every_wording_of_a_question_is_known() -> None:
    for questions in ([Q, "头疼"], [[Q, "头疼"]]):
        asked = parse_record({"questions": questions, "answers": [A]})
        assert (asked.last, asked.wordings, asked.reference) == (Q, ("头疼",), A)


# ------------------------------------------------------------ conversations


@pytest.mark.parametrize(
    "said",
    [
        [model("您好。"), human("一"), model("二"), human(Q), model(A)],
        [["一", "二"], human(Q), model(A)],
        [{"human": "一", "assistant": "二"}, {"human": Q, "assistant": A}],
    ],
)
def test_elements_of_several_kinds_are_one_conversation(said: list[Any]) -> None:
    spoken = parse_conversation("dialogue", said)
    greeting = (Turn("", "您好。"),) if len(said) == 5 else ()
    assert (spoken.turns, spoken.last, spoken.answer) == ((*greeting, Turn("一", "二")), Q, A)
    assert spoken.unlearned == (frozenset((0,)) if greeting else frozenset())


def test_neighbours_of_one_role_are_joined() -> None:
    said = [human("你好"), human(Q), model("先量体温。"), model(A), human("好"), human("谢谢")]
    spoken = parse_conversation("messages", said)
    assert spoken.turns == (Turn(f"你好\n{Q}", f"先量体温。\n{A}"),)
    assert (spoken.last, spoken.answer) == ("好\n谢谢", None)
    system = parse_conversation("messages", [model("一", "system"), model("二", "Developer"), human(Q)])
    assert (system.system, system.last) == ("一\n二", Q)


def test_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "头痛"}, {"type": "input_text", "text": "三天"}, "怎么办"]
    assert (
        parse_conversation("messages", [model("x"), {"role": "user", "content": parts}]).last
        == "头痛\n三天\n怎么办"
    )


@pytest.mark.parametrize("key", ["weight", "loss", "train"])
@pytest.mark.parametrize("off", [0, False, 0.0])
def test_an_answer_of_no_weight_is_context_alone(key: str, off: Any) -> None:
    said = [human("一"), model("二", **{key: off}), human(Q), model(A, **{key: 1})]
    spoken = parse_conversation("messages", said)
    assert (spoken.unlearned, spoken.turns, spoken.answer) == (frozenset((0,)), (Turn("一", "二"),), A)
    said[3][key] = off
    assert parse_conversation("messages", said).unlearned == {0, 1}


def test_keys_of_messages_that_mean_nothing_are_named_once() -> None:
    said = [human(Q) | {"name": "张三"}, model(A, name="李四", tool_calls=[], id=7)]
    assert parse_conversation("messages", said).unused == ("messages[].name", "messages[].id")
    record = {"messages": said, "source": "网", "tools": []}
    assert parse_record(record).unused == ("source", "messages[].name", "messages[].id")


@pytest.mark.parametrize(
    ("history", "turns", "last"),
    [
        ([["一", "二"]], (Turn("一", "二"),), Q),
        ([human("一"), model("二")], (Turn("一", "二"),), Q),
        ([{"question": "一", "answer": "二"}], (Turn("一", "二"),), Q),
        ([model("您好。")], (Turn("", "您好。"),), Q),
        ([human("一"), model("二"), human("还有")], (Turn("一", "二"),), f"还有\n{Q}"),
        ([], (), Q),
        ("", (), Q),
    ],
)
def test_a_history_is_pairs_or_messages(history: Any, turns: tuple[Turn, ...], last: str) -> None:
    asked = parse_record({"prompt": Q, "response": A, "history": history})
    assert (asked.turns, asked.last, asked.text, asked.reference) == (turns, last, Q, A)


MESSAGES: list[tuple[list[Any], str]] = [
    ([human(Q), model(A), human("x", "tool")], "message 3: unknown role 'tool'"),
    ([human(Q), {"role": ["assistant"], "content": A}], "message 2: unknown role"),
    ([human(Q), {"role": None, "content": A}], "message 2: unknown role"),
    ([human(Q), {"content": A}], "message 2: there is no role"),
    ([human(Q), 7], "message 2: must be a message"),
    ([human(Q), ["a", "b", "c"]], "message 2: must be a message"),
    ([human(Q), A], "message 2: must be a message"),
    ([{"role": "user", "content": {"text": Q}}], "message 1: its content must be text"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "message 1: a part"),
    ([human(Q), {"role": "assistant", "content": None}], "message 2: its content must be text"),
    ([human(Q), model(" \n")], "message 2: its content is empty"),
    ([human(Q), model("\ud800")], "message 2: not valid Unicode"),
    ([human(Q), model(A, "system")], "message 2: system messages may stand only at the beginning"),
    ([human(Q), model(A, weight="0")], "message 2: weight must be 0 or 1"),
    ([human(Q), model(A, weight=0.5)], "message 2: weight must be 0 or 1"),
    ([human(Q), model("一", weight=0), model("二", weight=1)], "message 3: answers that follow each other"),
    ([{"human": Q, "user": "x", "assistant": A}], "message 1: human, user belong to the same side"),
    ([model(A)], "no question of the user"),
    ([model("s", "system")], "holds no messages"),
]


@pytest.mark.parametrize(("said", "why"), MESSAGES, ids=[why for _, why in MESSAGES])
def test_what_is_wrong_in_a_conversation_is_said_with_the_number_of_the_message(
    said: list[Any], why: str
) -> None:
    set_language("en")
    with pytest.raises(RecordError, match=re.escape(why)):
        parse_record({"conversations": said})


# ------------------------------------------------------------ nothing is guessed


@pytest.mark.parametrize(
    ("record", "use", "names"),
    [
        ({"instruction": "你是医生", "question": Q, "answer": A}, "question", ("instruction", "question")),
        ({"Question": Q, "question": "另一个", "answer": A}, "question", ("Question", "question")),
        ({"content": "文章", "query": Q, "summary": A}, "question", ("content", "query")),
        ({"question": Q, "answer": A, "output": "另一个"}, "answer", ("answer", "output")),
        ({"question": Q, "答案": "A", "response": A}, "answer", ("答案", "response")),
        ({"question": Q, "answer": A, "背景": "甲", "context": "乙"}, "context", ("背景", "context")),
        ({"messages": [human(Q), model(A)], "prompt": "另一个"}, "question", ("messages", "prompt")),
        (
            {"messages": [human(Q), model(A)], "conversations": [[Q, A]]},
            "question",
            ("messages", "conversations"),
        ),
        ({"messages": [human(Q), model(A)], "summary": "另一个"}, "answer", ("messages", "summary")),
    ],
)
def test_two_candidates_are_an_error_that_names_both_and_the_flag_that_decides(
    record: dict[str, Any], use: str, names: tuple[str, str]
) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(record)
    assert all(name in str(caught.value) for name in names)
    for name in names:
        assert f"--{use}-field {name}" in caught.value.remedy
        asked = parse_record(record, FieldChoice(**{use: name}))  # and each choice is one
        other = next(one for one in names if one != name)
        assert (use, name) in asked.used or name in ("messages", "conversations")
        assert other in asked.unused or (use == "answer" and other == "messages")


def test_a_named_field_counts_whatever_it_is_called_and_is_found_in_any_case() -> None:
    record = {"first_question": Q, "case": "男，49 岁", "Gold": A, "question": "另一个", "answer": "另一个"}
    asked = parse_record(record, FieldChoice("FIRST_question", "gold", "case"))
    assert (asked.last, asked.reference) == (f"男，49 岁\n{Q}", A)
    assert asked.unused == ("question", "answer")
    said = parse_record({"talk": [human(Q), model(A)]}, FieldChoice("talk"))
    assert (said.last, said.reference, said.form) == (Q, A, "conversation")


def test_a_field_that_is_named_for_one_use_is_no_candidate_for_another() -> None:
    asked = parse_record({"content": A, "question": Q}, FieldChoice(answer="Content"))
    assert (asked.last, asked.reference, asked.unused) == (Q, A, ())
    asked = parse_record(
        {"instruction": "", "input": "男", "prompt": Q, "output": A}, FieldChoice(context="input")
    )
    assert (asked.last, asked.input, asked.reference) == (f"男\n{Q}", "", A)
    with pytest.raises(RecordError):
        parse_record({"instruction": "", "input": "男", "output": A}, FieldChoice(context="input"))


@pytest.mark.parametrize("record", [{"question": Q, "answer": A}, {"question": Q, "answer": A, "gold": " "}])
def test_a_named_field_that_a_record_lacks_is_said(record: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="gold"):
        parse_record(record, FieldChoice(answer="gold"))
    assert parse_record(record, FieldChoice(context="gold")).last == Q
    assert parse_record({**record, "input": "男"}, FieldChoice(context="INPUT")).last == f"男\n{Q}"


@pytest.mark.parametrize(
    "record",
    [
        {"question": [Q], "answer": A},
        {"question": {"text": Q}, "answer": A},
        {"question": 7, "answer": A},
        {"question": Q, "input": ["a"], "answer": A},
        {"question": Q, "system": {"a": 1}, "answer": A},
        {"question": Q, "history": {"user": "a"}, "answer": A},
        {"question": Q, "history": ["一", "二"], "answer": A},
        {"question": Q, "options": [["a"]], "answer": A},
        {"questions": [["一"], ["二"]], "answers": ["甲", "乙"]},
        {"questions": ["一"], "answers": ["甲", "乙"]},
        {"questions": [7], "answers": ["甲"]},
        {"questions": [[]], "answers": ["甲"]},
        {"messages": {"role": "user"}},
        {"conversations": "text"},
        {},
        {"id": 3},
        [],
        None,
    ],
)
def test_a_value_of_the_wrong_type_is_a_bad_record(record: Any) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(record)
    assert str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [*(name for names in (*NAMES.values(), *WEAK_NAMES.values()) for name in names), "A", "B", "x"]
)
WORDS = st.sampled_from([Q, A, "", "user", "assistant", "weight"])
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "from", "content", "value", "weight", "human", "assistant"]),
    WORDS | JSON,
    max_size=4,
)


@given(st.dictionaries(KEYS, WORDS | JSON | st.lists(MESSAGE | WORDS | JSON, max_size=4), max_size=5) | JSON)
def test_any_json_value_is_a_record_or_a_bad_one(value: Any) -> None:
    try:
        asked = parse_record(value)
    except RecordError as error:
        assert str(error)
    else:
        assert isinstance(asked, QuestionRecord) and asked.last.strip()
        assert all(isinstance(turn.question, str) and turn.answer.strip() for turn in asked.turns)


# ------------------------------------------------------------ counting


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


MESSAGES = [human("发烧？"), model("退烧。"), human(Q), model(A)]


@pytest.mark.parametrize(
    "messages",
    [
        MESSAGES,
        [{"from": "human", "value": "发烧？"}, {"from": "gpt", "value": "退烧。"}, *MESSAGES[2:]],
        [human("你是医生", "system"), *MESSAGES],
    ],
)
def test_a_list_of_messages_is_a_conversation(messages: list[Any]) -> None:
    read = parse_record(messages)
    assert (read.last, read.reference, read.turns) == (Q, A, (Turn("发烧？", "退烧。"),))
    assert read.is_conversation


@pytest.mark.parametrize("message", [*MESSAGES, {"from": "gpt", "value": A}, {"speaker": "患者", "text": Q}])
def test_a_single_message_is_no_question(message: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="一条消息") as caught:
        parse_record(message)
    assert '{"messages": […]}' in caught.value.remedy


@pytest.mark.parametrize(
    "record", [{"author": "doctor", "question": Q, "answer": A}, {"from": 5, "question": Q}]
)
def test_a_record_that_says_whose_it_is_is_no_message(record: dict[str, Any]) -> None:
    assert parse_record(record).last == Q


def test_the_options_of_the_chinese_medical_benchmark_are_under_the_question() -> None:
    read = parse_record({"question": Q, "option": {"A": "休息", "B": "熬夜"}, "answer": "A"})
    assert read.last == f"{Q}\nA. 休息\nB. 熬夜"
