"""Stopping and failing, taking back and answering again."""

from __future__ import annotations

import contextlib
import threading

import pytest
from scripted_session import Journal, ScriptedModel, ask, kinds, session_of, told

from medchat.api import (
    Finish,
    GenerationConfig,
    Turn,
)
from medchat.chat.events import AnswerFinished, AnswerPiece, Event, LoopStopped, OldAnswerKept, TurnStats
from medchat.errors import MedchatError, UsageError

# ---------------------------------------------------------------- stopping, failing


def test_stopping_keeps_the_partial_answer() -> None:
    cancel, journal, session = threading.Event(), Journal(), session_of()
    session.recorder = journal
    events = []
    for event in session.ask("头痛？", cancel):
        events.append(event)
        cancel.set()
    partial = Turn("头痛？", "多", Finish.CANCELLED)
    assert kinds(events) == [AnswerPiece, AnswerFinished] and journal.entries == [("save", partial)]
    assert session.conversation.turns == (partial,)


def test_stopping_before_any_text_keeps_nothing() -> None:
    cancel, journal, session = threading.Event(), Journal(), session_of()
    session.recorder = journal
    cancel.set()
    assert list(session.ask("头痛？", cancel)) == []
    assert journal.entries == [] and session.conversation.turns == ()


def test_a_model_that_says_nothing_by_itself_still_makes_a_turn() -> None:
    session = session_of(ScriptedModel(()))
    assert kinds(ask(session)) == [AnswerFinished] and session.conversation.turns == (Turn("头痛？", ""),)


def failing() -> None:
    raise RuntimeError("cuda")


def test_a_model_that_fails_half_way_leaves_what_it_said_and_the_error_goes_on() -> None:
    journal = Journal()
    session = session_of(ScriptedModel(then=failing), recorder=journal)
    events = []
    with pytest.raises(RuntimeError, match="cuda"):
        for event in session.ask("头痛？", threading.Event()):
            events.append(event)  # noqa: PERF402  (extend would lose them with the error)
    assert kinds(events) == [AnswerPiece, AnswerPiece]
    assert journal.entries == [("save", Turn("头痛？", "多喝水", Finish.ERROR))]
    assert session.conversation.turns[-1].finish is Finish.ERROR


def test_a_model_that_fails_before_any_text_leaves_no_turn() -> None:
    journal = Journal()
    session = session_of(ScriptedModel((), then=failing), recorder=journal)
    with pytest.raises(RuntimeError):
        ask(session)
    assert journal.entries == [] and session.conversation.turns == ()


class BrokenRecorder(Journal):
    """A disk that is full."""

    def save(self, turn: Turn, stats: TurnStats, context: object, *, instead_of: int = 0) -> None:
        raise MedchatError("disk full")

    def undo(self, count: int) -> None:
        raise MedchatError("disk full")


def test_a_turn_that_could_not_be_recorded_is_never_announced() -> None:
    session = session_of(recorder=BrokenRecorder())
    events = []
    with pytest.raises(MedchatError, match="disk full"):
        for event in session.ask("头痛？", threading.Event()):
            events.append(event)  # noqa: PERF402
    assert kinds(events) == [AnswerPiece, AnswerPiece]


def test_an_undo_that_could_not_be_recorded_undoes_nothing() -> None:
    session = session_of(conversation=told(2, 5), recorder=BrokenRecorder())
    with pytest.raises(MedchatError):
        session.undo()
    assert len(session.conversation.turns) == 2


# ---------------------------------------------------------------- taking back, answering again


def test_undo_takes_the_last_turns_back_here_and_on_disk() -> None:
    journal = Journal()
    session = session_of(conversation=told(3, 5), recorder=journal)
    taken = session.undo(2)
    assert [turn.question for turn in taken] == ["01", "02"]
    assert len(session.conversation.turns) == 1 and journal.entries == [("undo", 2)]


@pytest.mark.parametrize("count", [0, -1, 4])
def test_undo_of_turns_that_are_not_there_is_refused(count: int) -> None:
    journal = Journal()
    session = session_of(conversation=told(3, 5), recorder=journal)
    with pytest.raises(UsageError):
        session.undo(count)
    assert len(session.conversation.turns) == 3 and journal.entries == []


def test_answering_again_replaces_the_last_turn_and_does_not_see_it() -> None:
    model, journal = ScriptedModel(), Journal()
    session = session_of(model, conversation=told(2, 5), recorder=journal)
    list(session.regenerate(threading.Event()))
    assert model.sent[0][0] == ("00答答答", "01")
    assert journal.entries == [("replace", Turn("01", "多喝水"))]
    assert [turn.answer for turn in session.conversation.turns] == ["答答答", "多喝水"]


def test_answering_again_moves_the_seed_each_time_until_the_next_question() -> None:
    model = ScriptedModel()
    session = session_of(model, config=GenerationConfig(max_new_tokens=100, seed=2**63 - 2))
    ask(session)
    for _ in range(3):
        list(session.regenerate(threading.Event()))
    ask(session)
    list(session.regenerate(threading.Event()))
    seeds = [config.seed for _, config in model.sent]
    assert len(set(seeds[:4])) == 4
    assert seeds[4:] == [seeds[0], seeds[1]]


def test_without_a_seed_answering_again_draws_another_and_the_session_stays_without_one() -> None:
    model = ScriptedModel()
    session = session_of(model)
    ask(session)
    list(session.regenerate(threading.Event()))
    first, second = (config.seed for _, config in model.sent)
    assert None not in (first, second) and first != second
    assert session.config.seed is None


def test_answering_again_with_no_question_is_refused() -> None:
    with pytest.raises(UsageError):
        list(session_of().regenerate(threading.Event()))


@pytest.mark.parametrize("said", [(), ("多", "喝水")], ids=["before a word", "part-way"])
@pytest.mark.parametrize("fails", [False, True], ids=["stopped", "failed"])
def test_a_new_answer_that_did_not_end_by_itself_leaves_the_old_one(
    said: tuple[str, ...], fails: bool
) -> None:
    journal, events, cancel = Journal(), list[Event](), threading.Event()
    then = failing if fails else cancel.set
    session = session_of(ScriptedModel(said, then=then), conversation=told(1, 5), recorder=journal)
    with pytest.raises(RuntimeError) if fails else contextlib.nullcontext():
        for event in session.regenerate(cancel):
            events.append(event)
    assert session.conversation == told(1, 5) and journal.entries == []
    finish = Finish.ERROR if fails else Finish.CANCELLED
    assert events == [*map(AnswerPiece, said), OldAnswerKept(finish)]


def test_a_new_answer_that_repeats_itself_leaves_the_old_one() -> None:
    session = session_of(ScriptedModel(("好的。",) * 200), conversation=told(1, 5), guard_loops=True)
    events = list(session.regenerate(threading.Event()))
    assert events[-2:] == [LoopStopped(), OldAnswerKept(Finish.CANCELLED)]
    assert session.conversation == told(1, 5)
