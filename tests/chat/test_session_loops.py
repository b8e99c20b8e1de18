"""What counts as a loop, and the guard against it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_session import Journal, ScriptedModel, ask, kinds, session_of

from medchat.api import (
    Finish,
)
from medchat.chat.events import AnswerFinished, LoopStopped
from medchat.chat.text_checks import repeats_without_end


@given(st.text(min_size=1, max_size=80), st.text(max_size=200))
@example("头痛", "")
def test_a_unit_repeated_over_the_window_is_a_loop(unit: str, before: str) -> None:
    times = max(6, -(-240 // len(unit)))
    assert repeats_without_end(before + unit * times)


@given(st.text(alphabet=st.characters(exclude_characters="0123456789|"), max_size=100), st.integers(0, 10**6))
def test_text_that_goes_on_counting_is_never_a_loop(words: str, start: int) -> None:
    text = "|".join(f"{number}{words}" for number in range(start, start + 200))
    assert not repeats_without_end(text)


@given(st.text(max_size=300))
@example("好" * 239)
@example("头痛的原因有很多种，" * 5 + "比如睡眠不足。")
def test_short_text_is_never_a_loop(text: str) -> None:
    assert not repeats_without_end(text[:239])


def distinct(length: int) -> str:
    """Return `length` different characters."""
    return "".join(chr(0x4E00 + number) for number in range(length))


@pytest.mark.parametrize("period", [1, 2, 39, 40, 41, 79, 80])
def test_one_repetition_fewer_than_the_stated_number_is_no_loop(period: int) -> None:
    times = max(6, -(-240 // period))
    unit, before = distinct(period), "。" * 3 + "，" * 300
    assert repeats_without_end(before + unit * times)
    assert not repeats_without_end(before + unit * (times - 1))


def test_a_unit_longer_than_stated_is_no_loop() -> None:
    assert not repeats_without_end(distinct(81) * 20)


@given(st.integers(1, 80), st.integers(0, 300))
def test_a_loop_that_has_ended_is_none(period: int, tail: int) -> None:
    ended = distinct(period) * max(6, -(-240 // period)) + "".join(
        chr(0x6E00 + number) for number in range(tail + 1)
    )
    assert not repeats_without_end(ended)


def endless(stopped: Finish = Finish.CANCELLED) -> ScriptedModel:
    return ScriptedModel(("休息",) * 10_000, context_length=100_000, stopped=stopped)


@pytest.mark.parametrize("stopped", [Finish.CANCELLED, Finish.STOP])
def test_the_loop_guard_stops_the_model_and_keeps_what_it_said(stopped: Finish) -> None:
    journal = Journal()
    session = session_of(endless(stopped), guard_loops=True, recorder=journal)
    events = ask(session)
    assert kinds(events)[-2:] == [LoopStopped, AnswerFinished] and kinds(events).count(LoopStopped) == 1
    turn = session.conversation.turns[-1]
    assert turn.finish is Finish.CANCELLED and 240 <= len(turn.answer) <= 260
    assert journal.entries == [("save", turn)]


def test_without_the_guard_a_repeating_model_is_left_alone() -> None:
    session = session_of(endless())
    events = ask(session)
    assert LoopStopped not in kinds(events) and len(session.conversation.turns[-1].answer) == 20_000
