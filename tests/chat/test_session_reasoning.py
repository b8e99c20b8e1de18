"""Reasoning and refused settings on their way through a conversation."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from scripted_session import Journal, ScriptedModel, ask, kinds, session_of

from medchat.api import Delta, Finish, GenerationConfig, Turn
from medchat.chat.events import (
    AnswerFinished,
    AnswerPiece,
    AnswerRestarted,
    Event,
    ReasoningPiece,
    SettingsRejected,
)
from medchat.repl import messages


@dataclass
class DeltaModel(ScriptedModel):
    """Answers with the deltas it is given, and then fails where it is told to."""

    deltas: Sequence[Delta] = ()
    failure: Exception | None = None

    def stream(self, segments: Any, config: GenerationConfig, cancel: threading.Event) -> Iterator[Delta]:
        yield from self.deltas
        if self.failure is not None:
            raise self.failure


def finished(events: Sequence[Event]) -> AnswerFinished:
    assert isinstance(events[-1], AnswerFinished)
    return events[-1]


def test_reasoning_is_shown_apart_and_is_no_part_of_turn_or_history() -> None:
    deltas = [
        Delta(reasoning="想一"),
        Delta(reasoning="想"),
        Delta("多休"),
        Delta("息。", finish=Finish.STOP),
    ]
    session, journal = session_of(DeltaModel(deltas=deltas)), Journal()
    session.recorder = journal
    events = ask(session)
    assert kinds(events) == [ReasoningPiece, ReasoningPiece, AnswerPiece, AnswerPiece, AnswerFinished]
    turn = Turn("头痛？", "多休息。", Finish.STOP)
    assert (finished(events).turn, finished(events).reasoning) == (turn, "想一想")
    assert session.conversation.turns == (turn,) and journal.entries == [("save", turn)]
    assert session.last_reasoning == "想一想"


def test_what_turns_out_to_be_reasoning_is_taken_out_of_the_answer() -> None:
    turned = Delta("多休", reasoning="。", restarts=True)
    deltas = [Delta("想一"), Delta("想"), turned, Delta("息。", finish=Finish.STOP)]
    session = session_of(DeltaModel(deltas=deltas))
    events = ask(session)
    shown = [
        AnswerPiece,
        AnswerPiece,
        AnswerRestarted,
        ReasoningPiece,
        AnswerPiece,
        AnswerPiece,
        AnswerFinished,
    ]
    assert kinds(events) == shown
    assert session.conversation.turns == (Turn("头痛？", "多休息。", Finish.STOP),)
    assert finished(events).reasoning == "想一想。"


def test_a_failure_amid_the_reasoning_keeps_no_turn_and_one_amid_the_answer_keeps_the_answer() -> None:
    session = session_of(DeltaModel(deltas=[Delta(reasoning="想")], failure=OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        ask(session)
    assert session.conversation.turns == () and session.last_reasoning == "想"
    session = session_of(
        DeltaModel(deltas=[Delta("想"), Delta("多", restarts=True)], failure=OSError("gone"))
    )
    with pytest.raises(OSError, match="gone"):
        ask(session)
    assert session.conversation.turns == (Turn("头痛？", "多", Finish.ERROR),)


def test_the_reasoning_of_one_answer_does_not_stay_for_the_next() -> None:
    model = DeltaModel(deltas=[Delta("多", reasoning="想", finish=Finish.STOP)])
    session = session_of(model)
    ask(session)
    model.deltas = [Delta("水", finish=Finish.STOP)]
    assert finished(ask(session)).reasoning == session.last_reasoning == ""


def test_a_setting_that_is_refused_is_said_once_a_session_and_stands_with_every_answer() -> None:
    model = DeltaModel(
        deltas=[Delta("多", rejected=("seed",)), Delta(finish=Finish.STOP, rejected=("seed",))]
    )
    session = session_of(model)
    first, second = ask(session), ask(session)
    assert kinds(first) == [SettingsRejected, AnswerPiece, AnswerFinished]
    assert kinds(second) == [AnswerPiece, AnswerFinished]
    assert finished(first).rejected == finished(second).rejected == ("seed",)
    model.deltas = [Delta("多", finish=Finish.STOP, rejected=("top_p", "seed"))]
    assert [event.names for event in ask(session) if isinstance(event, SettingsRejected)] == [("top_p",)]


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (Delta("多", reasoning="想", finish=Finish.STOP), ""),
        (Delta(" \n", reasoning="想", finish=Finish.STOP), "只有思考"),
        (Delta(reasoning="想", finish=Finish.LENGTH), "max-new-tokens"),
        (Delta(reasoning=" ", finish=Finish.STOP), "没有写出任何文字"),
        (Delta(finish=Finish.STOP), "没有写出任何文字"),
    ],
)
def test_what_is_said_of_an_answer_that_is_empty(delta: Delta, words: str) -> None:
    said = messages.empty(finished(ask(session_of(DeltaModel(deltas=[delta])))))
    assert words in said and bool(words) is bool(said)


def test_settings_that_a_user_chooses_are_no_longer_the_servers() -> None:
    left = GenerationConfig(unset=frozenset({"temperature", "top_p"}))
    chosen = left.with_settings(top_p=0.5, seed=3)
    assert (chosen.unset, chosen.top_p, chosen.seed) == (frozenset({"temperature"}), 0.5, 3)
