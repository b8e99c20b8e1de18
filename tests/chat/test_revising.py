"""Editing, continuing an answer, going back: what the model is sent, what is said, what is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from scripted_session import Journal, ScriptedContinuer, ScriptedModel, ask, kinds, session_of, told

from medchat.api import Conversation, Finish, Turn
from medchat.chat.events import AnswerFinished
from medchat.chat.recorder import StoreRecorder
from medchat.chat.revising import edit_answer, edit_question, go_on, redo, switch
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.store import SessionRecord, SessionStore


def create(store: SessionStore) -> SessionRecord:
    return store.create("scripted", "none")


@pytest.fixture
def store() -> Iterator[SessionStore]:
    with SessionStore.unsaved() as store:
        yield store


@pytest.fixture
def session(store: SessionStore) -> ChatSession:
    """Three turns, saved."""
    session = session_of(recorder=StoreRecorder(store, create, None, pytest.fail))
    for question in "甲乙丙":
        ask(session, question)
    return session


def said(session: ChatSession) -> list[str]:
    return [turn.question for turn in session.conversation.turns]


def saved(store: SessionStore) -> list[str]:
    return [one.turn.question for one in store.turns(store.list()[0].id)]


# ---------------------------------------------------------------- editing


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_edited_question_is_answered_after_what_came_before_it(number: int) -> None:
    model, journal = ScriptedModel(), Journal()
    session = session_of(model, conversation=told(3, 5), recorder=journal)
    list(edit_question(session, number, "改过", threading.Event()))
    assert model.sent[0][0] == (*[f"{one:02d}答答答" for one in range(number - 1)], "改过")
    assert said(session) == [*[f"{one:02d}" for one in range(number - 1)], "改过"]
    assert journal.entries == [("replace", Turn("改过", "多喝水"))]


def test_an_edit_stopped_before_its_first_word_changes_nothing() -> None:
    journal, stop = Journal(), threading.Event()
    stop.set()
    session = session_of(conversation=told(3, 5), recorder=journal)
    assert AnswerFinished not in kinds(list(edit_question(session, 1, "改过", stop)))
    assert session.conversation == told(3, 5) and journal.entries == []


def test_an_edit_that_was_stopped_part_way_keeps_what_came_and_the_former_turns(
    session: ChatSession, store: SessionStore
) -> None:
    stop = threading.Event()
    events = []
    for event in edit_question(session, 2, "改过", stop):
        events.append(event)
        stop.set()
    assert session.conversation.turns[-1] == Turn("改过", "多", Finish.CANCELLED)
    assert saved(store) == said(session) == ["甲", "改过"]
    assert [turn.question for turn in redo(session)] == ["乙", "丙"]
    assert isinstance(events[-1], AnswerFinished)


def test_an_edited_answer_ends_the_conversation_and_is_kept_as_the_users_words(
    session: ChatSession, store: SessionStore
) -> None:
    edit_answer(session, 2, "多休息")
    assert [turn.answer for turn in session.conversation.turns] == ["多喝水", "多休息"]
    whole = store.transcript(store.list()[0].id)
    assert [one.turn.answer for one in whole.turns] == ["多喝水", "多休息"]
    assert [other.saved.turn.question for other in whole.others] == ["乙", "丙"]


def test_listeners_hear_of_an_edited_answer() -> None:
    heard = []
    session = session_of(
        conversation=told(2, 5), listeners=[lambda conversation, turn: heard.append((conversation, turn))]
    )
    turn = edit_answer(session, 1, "改过")
    assert heard == [(Conversation((turn,)), turn)]


@pytest.mark.parametrize("number", [0, -1, 4, 99])
def test_a_turn_that_is_not_there_cannot_be_edited(number: int) -> None:
    session = session_of(conversation=told(3, 5))
    for edit in (
        lambda: list(edit_question(session, number, "改", threading.Event())),
        lambda: edit_answer(session, number, "改"),
    ):
        with pytest.raises(UsageError, match="没有第"):
            edit()
    assert session.conversation == told(3, 5)


# ---------------------------------------------------------------- continuing


@pytest.mark.parametrize("finish", [Finish.CANCELLED, Finish.LENGTH, Finish.ERROR])
def test_an_answer_that_was_cut_off_goes_on_where_it_ended(finish: Finish) -> None:
    model, journal = ScriptedContinuer(), Journal()
    before = Conversation((Turn("头痛", "先休息，", finish),))
    session = session_of(model, conversation=before, recorder=journal)
    events = list(go_on(session, threading.Event()))
    assert model.sent[0][0] == ("头痛", "先休息，")
    assert session.conversation.turns == (Turn("头痛", "先休息，多喝水"),)
    assert journal.entries == [("extend", Turn("头痛", "先休息，多喝水"))]
    assert isinstance(events[-1], AnswerFinished) and events[-1].turn.answer == "先休息，多喝水"


def test_going_on_that_is_stopped_before_a_word_leaves_the_answer_as_it_was() -> None:
    journal, stop = Journal(), threading.Event()
    stop.set()
    before = Conversation((Turn("头痛", "先休息，", Finish.LENGTH),))
    session = session_of(ScriptedContinuer(), conversation=before, recorder=journal)
    list(go_on(session, stop))
    assert session.conversation == before and journal.entries == []


@pytest.mark.parametrize("turns", [(), (Turn("头痛", "多休息。"),), (Turn("头痛", "", Finish.ERROR),)])
def test_there_is_nothing_to_go_on_with_where_no_answer_was_cut_off(turns: tuple[Turn, ...]) -> None:
    session = session_of(ScriptedContinuer(), conversation=Conversation(turns))
    with pytest.raises(UsageError):
        list(go_on(session, threading.Event()))


def test_a_model_that_cannot_go_on_says_so_and_what_to_do_instead() -> None:
    session = session_of(conversation=Conversation((Turn("头痛", "先休息，", Finish.LENGTH),)))
    with pytest.raises(UsageError, match="不能续写") as caught:
        list(go_on(session, threading.Event()))
    assert "/重答" in caught.value.remedy


# ---------------------------------------------------------------- going back


def test_what_was_undone_comes_back(session: ChatSession, store: SessionStore) -> None:
    session.undo(2)
    assert [turn.question for turn in redo(session)] == ["乙"]
    assert [turn.question for turn in redo(session, 5)] == ["丙"]
    assert said(session) == saved(store) == ["甲", "乙", "丙"]
    with pytest.raises(UsageError, match="没有可以恢复"):
        redo(session)


def test_answers_given_again_are_gone_through_in_turn(session: ChatSession, store: SessionStore) -> None:
    list(session.regenerate(threading.Event()))
    list(session.regenerate(threading.Event()))
    (point,) = session.recorder.branches()
    assert (point.position, len(point.alternatives), point.current) == (3, 3, 2)
    found = []
    for _ in range(3):
        redo(session)
        found.append(session.recorder.branches()[0].current)
    assert found == [0, 1, 2]


def test_another_branch_is_chosen_and_the_conversation_is_what_it_was(session: ChatSession) -> None:
    list(edit_question(session, 2, "改过", threading.Event()))
    assert [turn.question for turn in switch(session, 2, 0)] == ["乙", "丙"]
    ask(session, "丁")
    assert [turn.question for turn in switch(session, 2, 1)] == ["改过"]
    assert [turn.question for turn in switch(session, 2, 0)] == ["乙", "丙", "丁"]
    with pytest.raises(UsageError):
        switch(session, 2, 7)


def test_nothing_comes_back_where_nothing_is_kept() -> None:
    session = session_of(conversation=told(2, 5))
    session.undo()
    with pytest.raises(UsageError, match="没有可以恢复"):
        redo(session)
    assert len(session.conversation.turns) == 1
