"""What the demo's miniature answers: the questions it learned, and an offer of the nearest for any other."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_session import ScriptedModel, session_of

from medchat.api import (
    Notice,
    Turn,
)
from medchat.chat.demo_mode import DemoGate, KnownQuestions, LearnedAlone, UnknownToDemo
from medchat.chat.events import Advice
from medchat.demo_data import demo_examples
from medchat.templates import load_template

pytest_plugins = ("cli_program",)

NOTICE = "这不是演示模型学过的问题"


@pytest.mark.safety
def test_every_question_of_its_own_is_known_however_it_is_punctuated() -> None:
    known = KnownQuestions(demo_examples())
    for pair in demo_examples():
        for asked in (
            pair.question,
            pair.question.rstrip("？?。"),
            f" {pair.question}\n",
            f"{pair.question}！",
        ):
            known.check(asked)
            assert known.warnings(asked) == ()


def test_a_question_is_sent_alone_and_as_it_was_learned() -> None:
    pair = demo_examples()[0]
    before = (Turn("别的问题", "别的回答"),)
    form = LearnedAlone(load_template("bare"), KnownQuestions(demo_examples()))
    learned = load_template("bare").render((), pair.question)
    assert form.render(before, pair.question.rstrip("？") + "?") == learned
    assert form.render(before, "没学过的") == load_template("bare").render((), "没学过的")


@pytest.mark.safety
@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("我爸胸口闷，出冷汗", "胸口疼什么时候很危险？"),
        ("不想活了", "朋友说不想活了我该做什么？"),
        ("怀孕出血", "怀孕后出血怎么办？"),
        ("怎么打喷嚏", "咳嗽打喷嚏时怎么做？"),
        ("高血压", "血压多高算高血压？"),
        ("打120要说啥", "打120时要说什么？"),
        ("12356", "12356是什么电话？"),
    ],
)
def test_any_other_question_is_refused_with_the_nearest_ones_first(asked: str, offered: str) -> None:
    with pytest.raises(UnknownToDemo) as refused:
        KnownQuestions(demo_examples()).check(asked)
    assert refused.value.nearest[0] == offered and offered in refused.value.what
    assert len(refused.value.nearest) <= 3 and "--force-answer" in refused.value.remedy


@pytest.mark.safety
@pytest.mark.parametrize(
    "asked", ["量子力学是什么？", "hello", "13812345678", "？？？", "", "怎么办", "\x00\u202e"]
)
def test_a_question_that_shares_nothing_with_a_learned_one_is_refused_without_an_offer(asked: str) -> None:
    with pytest.raises(UnknownToDemo) as refused:
        KnownQuestions(demo_examples()).check(asked)
    assert refused.value.nearest == ()


@given(st.text(max_size=40))
def test_whatever_is_asked_is_learned_or_refused_and_every_offer_was_learned(asked: str) -> None:
    known = KnownQuestions(demo_examples())
    try:
        known.check(asked)
    except UnknownToDemo as refused:
        assert all(known.learned(question) == question for question in refused.nearest)
        assert known.warnings(asked)


def test_a_number_chooses_from_the_last_offer_alone() -> None:
    gate = DemoGate(KnownQuestions(demo_examples()))
    assert gate.meant("1") == "1"  # nothing was offered
    with pytest.raises(UnknownToDemo) as refused:
        gate.admit("高血压", insist=False)
    first, second = refused.value.nearest
    assert [gate.meant(typed) for typed in ("1", " ２ ", "0", "3", "99999999999999999999", "-1")] == [
        first, second, "0", "3", "99999999999999999999", "-1",
    ]  # fmt: skip
    assert gate.refused == "高血压"
    assert gate.admit(first, insist=False) == ()
    assert (gate.meant("1"), gate.refused) == ("1", "")


@pytest.mark.safety
def test_an_emergency_is_noticed_before_the_miniature_refuses_and_before_it_is_made_to_answer() -> None:
    model = ScriptedModel()
    notice = Notice("请拨打 120", urgent=True)
    gate = DemoGate(KnownQuestions(demo_examples()))
    session = session_of(model, gate=gate, advisers=(lambda before, question: [notice],))
    events = session.ask("我爸胸口闷，出冷汗", threading.Event())
    assert next(events) == Advice(notice)
    with pytest.raises(UnknownToDemo):
        next(events)
    assert model.sent == [] and session.conversation.turns == ()
    insisted = list(session.ask(gate.refused, threading.Event(), insist=True))
    assert insisted[0] == Advice(notice) and NOTICE in str(insisted[1])
    again = list(session.regenerate(threading.Event()))
    assert again[0] == Advice(notice) and NOTICE in str(again[1])
