"""Which field is the question and which the answer: nothing is guessed, and a bad value is a bad record."""

from __future__ import annotations

from typing import Any

import pytest
from data_records import A, Q, human, model
from hypothesis import given
from hypothesis import strategies as st

from medchat.datafiles.fields import NAMES, WEAK_NAMES, FieldChoice, RecordError
from medchat.datafiles.record import QuestionRecord, parse_record


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
