"""What a conversation says about the user's words, and about the answer: once in full, then in a line."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from scripted_session import ScriptedModel, ask, kinds, session_of

from medchat.api import Conversation, Notice, Turn
from medchat.chat.events import Advice, AnswerFinished, AnswerPiece, AnswerReviewed, Event
from medchat.chat.session import ChatSession
from medchat.medical_safety import keys_shown, review_answer
from medchat.repl import afresh

pytestmark = pytest.mark.safety

CHEST = Notice("在全文里", urgent=True, key="chest", short="短")
BURN = Notice("烫伤全文", urgent=True, key="burn", short="烫伤")
PLUGIN = Notice("插件的话")


def about(*notices: Notice) -> ChatSession:
    return session_of(advisers=(lambda before, question: [n for n in notices if n.text[0] in question],))


def said(events: Sequence[Event]) -> list[str]:
    return [event.notice.text for event in events if isinstance(event, Advice)]


def test_each_kind_is_said_in_full_once_and_in_a_line_from_then_on() -> None:
    session = about(CHEST, BURN)
    assert [said(ask(session, question)) for question in ("在", "在", "烫", "在烫", "烫")] == [
        ["在全文里"], ["短"], ["烫伤全文"], ["短", "烫伤"], ["烫伤"],
    ]  # fmt: skip


def test_a_notice_without_a_key_or_without_a_line_is_said_again_as_it_is() -> None:
    whole = Notice("全文而已", urgent=True, key="whole")
    session = about(PLUGIN, whole)
    assert [said(ask(session, question)) for question in ("插", "插", "全", "全")] == [
        ["插件的话"], ["插件的话"], ["全文而已"], ["全文而已"],
    ]  # fmt: skip


def test_an_answer_given_again_gets_the_line_and_another_conversation_the_full_text() -> None:
    session = about(CHEST)
    ask(session, "在")
    assert said(list(session.regenerate(threading.Event()))) == ["短"]
    assert said(ask(afresh(session), "在")) == ["在全文里"]
    assert said(ask(session, "在")) == ["短"]


def test_what_was_shown_before_is_worked_out_from_a_conversation_that_goes_on() -> None:
    turns = (Turn("我想自杀", ""), Turn("我刚吃了虾", ""), Turn("嘴唇肿起来了", ""))
    assert keys_shown(Conversation(turns)) == {"self-harm", "anaphylaxis"}
    assert keys_shown(Conversation()) == set() == keys_shown(Conversation((Turn("感冒了", ""),)))


# ---------------------------------------------------------------- after the answer


def reviewed(events: Sequence[Event]) -> list[str]:
    return [event.notice.key for event in events if isinstance(event, AnswerReviewed)]


def answering(*pieces: str, notices: Sequence[Notice] = (CHEST,)) -> ChatSession:
    return session_of(
        ScriptedModel(pieces), advisers=(lambda before, question: notices,), reviewers=(review_answer,)
    )


def test_an_answer_is_looked_at_only_where_a_red_flag_fired() -> None:
    events = ask(answering("不用去医院，", "在家观察。"))
    assert reviewed(events) == ["answer-contradicts"]
    assert kinds(events) == [Advice, AnswerPiece, AnswerPiece, AnswerReviewed, AnswerFinished]
    assert reviewed(ask(answering("请马上打120。"))) == []
    for notices in ((), (PLUGIN,), (Notice("不急", key="calm"),)):
        assert reviewed(ask(answering("不用去医院。", notices=notices))) == []


def test_a_stopped_and_a_failed_answer_are_looked_at_too() -> None:
    session = answering("不用去医院，", "再说")
    cancel, events = threading.Event(), []
    for event in session.ask("在", cancel):
        events.append(event)
        if isinstance(event, AnswerPiece):
            cancel.set()
    assert reviewed(events) == ["answer-contradicts"]

    def fail() -> None:
        raise RuntimeError("broken")

    failing = answering()
    failing.model = ScriptedModel(("在家观察。",), then=fail)
    events = []
    with pytest.raises(RuntimeError):
        for event in failing.ask("在", threading.Event()):
            events.append(event)
    assert reviewed(events) == ["answer-contradicts"]


def test_a_dose_is_remarked_on_once_a_conversation_and_a_contradiction_each_time() -> None:
    session = answering("不用去医院，吃 2 片。")
    keys = [reviewed(ask(session, "孩子在抽搐")) for _ in range(2)]
    assert keys == [["answer-contradicts", "answer-dose"], ["answer-contradicts"]]
