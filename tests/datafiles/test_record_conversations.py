"""Records that hold a conversation: roles, messages, histories, and what is wrong in them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from data_records import A, Q, human, model

from medchat.api import Turn
from medchat.datafiles.conversations import parse_conversation
from medchat.datafiles.fields import RecordError
from medchat.datafiles.record import parse_record
from medchat.language import set_language


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


#: What is no conversation, and what is said of it.
WRONG: list[tuple[list[Any], str]] = [
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
    ([human(Q), model("一", weight=0), model("二", weight=1)], "message 3: consecutive answers"),
    ([{"human": Q, "user": "x", "assistant": A}], "message 1: human, user belong to the same side"),
    ([model(A)], "no question of the user"),
    ([model("s", "system")], "holds no messages"),
]


@pytest.mark.parametrize(("said", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_is_wrong_in_a_conversation_is_said_with_the_number_of_the_message(
    said: list[Any], why: str
) -> None:
    set_language("en")
    with pytest.raises(RecordError, match=re.escape(why)):
        parse_record({"conversations": said})


#: Two questions, the last of them Q.
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


def test_the_context_of_a_dialogue_stands_before_its_last_question() -> None:
    record = {
        "instruction": f" <user>: 一 <bot>: 二 <user>: {Q}",
        "context": "男",
        "output": A,
        "options": "A. 是",
    }
    asked = parse_record(record)
    assert (asked.turns, asked.last, asked.is_dialogue) == ((Turn("一", "二"),), f"男\n{Q}\nA. 是", False)
