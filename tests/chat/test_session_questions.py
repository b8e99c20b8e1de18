"""Which questions are refused before they are sent."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_session import ScriptedModel, ask, session_of

from medchat.api import (
    Conversation,
    Notice,
)
from medchat.chat.collaborators import NoRecorder, Recorder
from medchat.chat.text_checks import MAX_QUESTION_BYTES, check_question
from medchat.errors import UsageError


@pytest.mark.parametrize("question", ["", " \t\n", "\u3000\u00a0"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(UsageError):
        check_question(question)


@pytest.mark.parametrize("question", ["a" * 101, "字" * 34, "𠮷" * 26, "é" * 51])
def test_a_question_is_measured_in_bytes(question: str) -> None:
    check_question(question[:-1], 100)
    with pytest.raises(UsageError, match="100"):
        check_question(question, 100)


@given(st.text(max_size=60), st.integers(1, 120))
def test_size_is_refused_exactly_where_the_bytes_exceed_it(question: str, limit: int) -> None:
    size = len(question.encode())
    try:
        check_question(question, limit)
    except UsageError:
        assert size > limit or not question.strip()
    else:
        assert size <= limit


def test_a_question_with_half_a_character_is_refused_with_its_place() -> None:
    with pytest.raises(UsageError, match="3"):
        check_question("头痛\udcff")


def test_the_session_holds_to_its_own_limit_before_anything_else_happens() -> None:
    model, advised = ScriptedModel(), []

    def adviser(conversation: Conversation, question: str) -> list[Notice]:
        advised.append(question)
        return []

    session = session_of(model, max_question_bytes=10, advisers=(adviser,))
    with pytest.raises(UsageError):
        ask(session, "头痛怎么办")
    assert model.sent == [] and advised == []
    assert MAX_QUESTION_BYTES == 1 << 20  # what the documents state


def test_keeping_nothing_is_a_recorder_too() -> None:
    recorder: Recorder = NoRecorder()
    session = session_of(recorder=recorder)
    ask(session)
    list(session.regenerate(threading.Event()))
    session.undo()
    assert session.conversation.turns == ()
