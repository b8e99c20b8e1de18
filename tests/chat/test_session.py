"""A turn from question to record, and what does not fit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from scripted_session import Form, Journal, ScriptedModel, ask, kinds, session_of, told

from medchat.api import (
    Conversation,
    Finish,
    GenerationConfig,
    Notice,
    Segment,
    Turn,
)
from medchat.chat.events import (
    Advice,
    AnswerFinished,
    AnswerPiece,
    AnswerShortened,
    HistoryDropped,
    SingleTurnTemplate,
    TurnStats,
)
from medchat.errors import UsageError
from medchat.repl import messages

# ---------------------------------------------------------------- a turn


def test_the_pieces_come_in_order_and_the_answer_is_their_sum() -> None:
    session = session_of()
    events = ask(session)
    assert events[:2] == [AnswerPiece("多"), AnswerPiece("喝水")]
    assert isinstance(events[2], AnswerFinished) and events[2].turn == Turn("头痛？", "多喝水", Finish.STOP)
    assert session.conversation.turns == (events[2].turn,)


def test_each_question_is_sent_after_all_that_was_said() -> None:
    model = ScriptedModel()
    session = session_of(model, conversation=Conversation(system="你是医生"))
    for question in ("一", "二", "三"):
        ask(session, question)
    assert [sent for sent, _ in model.sent] == [
        ("你是医生", "一"),
        ("你是医生", "一多喝水", "二"),
        ("你是医生", "一多喝水", "二多喝水", "三"),
    ]


def test_without_history_each_question_is_sent_alone_and_all_is_still_recorded() -> None:
    model, journal = ScriptedModel(), Journal()
    session = session_of(
        model, recorder=journal, remember_history=False, conversation=Conversation(system="医")
    )
    for question in ("一", "二"):
        ask(session, question)
    assert [sent for sent, _ in model.sent] == [("医", "一"), ("医", "二")]
    assert len(journal.entries) == len(session.conversation.turns) == 2


def test_a_turn_is_recorded_before_it_is_announced() -> None:
    journal = Journal()
    for event in session_of(recorder=journal).ask("头痛？", threading.Event()):
        if isinstance(event, AnswerFinished):
            assert journal.entries == [("save", event.turn)]
            return
        assert journal.entries == []
    pytest.fail("the turn was never announced")


def test_stop_texts_of_the_user_and_of_the_template_reach_the_model() -> None:
    model = ScriptedModel()
    config = GenerationConfig(stop=("用户：",))
    ask(session_of(model, config=config, template=Form(stop=("###",))))
    assert model.sent[0][1].stop == ("用户：", "###")


def test_figures_are_those_of_the_models_last_delta() -> None:
    session = session_of()
    answered = ask(session, "头痛？")[-1]
    assert isinstance(answered, AnswerFinished) and session.last_stats == answered.stats
    stats = answered.stats
    assert (stats.prompt_tokens, stats.completion_tokens, stats.reused_tokens, stats.first_tokens) == (
        3,
        3,
        3,
        1,
    )
    assert 0 < stats.first_token_seconds <= stats.seconds


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (TurnStats(completion_tokens=11, first_token_seconds=1.0, seconds=3.0, first_tokens=1), 5.0),
        (TurnStats(completion_tokens=11, first_token_seconds=2.0, seconds=2.0, first_tokens=11), 5.5),
        (TurnStats(), 0.0),
    ],
    ids=["streamed", "in one piece", "nothing said"],
)
def test_decoding_speed_leaves_the_wait_for_the_first_piece_out(stats: TurnStats, expected: float) -> None:
    assert stats.tokens_per_second == expected


def test_an_urgent_notice_comes_before_the_model_is_asked() -> None:
    model, seen = ScriptedModel(), []

    def adviser(conversation: Conversation, question: str) -> list[Notice]:
        seen.append((len(conversation.turns), question))
        return [Notice("请拨打 120", urgent=True)]

    session = session_of(model, advisers=(adviser, adviser))
    for event in session.ask("胸痛", threading.Event()):
        if isinstance(event, AnswerPiece):
            break
        assert event == Advice(Notice("请拨打 120", urgent=True)) and model.sent == []
    assert seen == [(0, "胸痛"), (0, "胸痛")]


def test_listeners_hear_of_a_turn_once_it_is_recorded() -> None:
    journal, heard = Journal(), []

    def listen(conversation: Conversation, turn: Turn) -> None:
        heard.append((conversation.turns[-1], turn, len(journal.entries)))

    ask(session_of(recorder=journal, listeners=(listen,)))
    assert heard == [(Turn("头痛？", "多喝水"), Turn("头痛？", "多喝水"), 1)]


# ---------------------------------------------------------------- what does not fit


def test_the_oldest_turns_are_dropped_whole_and_it_is_said_once() -> None:
    model = ScriptedModel(context_length=200)  # 100 for the answer at most, but a quarter is kept for it
    session = session_of(model, conversation=told(10, 20))
    first = ask(session, "问题一")
    assert first[0] == HistoryDropped(3, kept=7) and kinds(first).count(HistoryDropped) == 1
    assert model.sent[0][0][0].startswith("03") and model.sent[0][0][-1] == "问题一"
    assert len(session.conversation.turns) == 11  # dropped from the prompt, never from the record
    assert HistoryDropped not in kinds(ask(session, "二"))


def test_more_turns_dropped_later_are_said_again() -> None:
    session = session_of(ScriptedModel(("很" * 30,), context_length=200), conversation=told(10, 20))
    said = [
        event for number in "一二三" for event in ask(session, number) if isinstance(event, HistoryDropped)
    ]
    assert [event.turns for event in said] == sorted({event.turns for event in said})
    assert len(said) == 3


class LatestOnly(Form):
    """A form that shows the latest `kept` turns, however many there are."""

    kept = 0

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        latest = turns[len(turns) - self.kept :] if self.kept else ()
        return super().render(latest, question, system)


@pytest.mark.parametrize("kept", [0, 2])
def test_turns_that_the_form_leaves_out_are_told_apart_from_those_without_room_and_once(kept: int) -> None:
    form = LatestOnly()
    form.kept = kept
    session = session_of(template=form, conversation=told(5, 4))
    events = [event for number in "一二三" for event in ask(session, number)]
    assert [event for event in events if isinstance(event, HistoryDropped)] == [
        HistoryDropped(5 - kept, kept, by_template=True)
    ]


def test_what_is_said_of_old_turns_names_the_reason() -> None:
    full, alone, latest = (
        messages.dropped(event)
        for event in (
            HistoryDropped(3, kept=7),
            HistoryDropped(5, by_template=True),
            HistoryDropped(3, kept=2, by_template=True),
        )
    )
    assert full.startswith("上下文已满，最早的 3 轮未发送")
    assert alone.startswith("此模板每次只发送当前问题") and "满" not in alone
    assert latest.startswith("此模板每次只发送最近 2 轮") and "3 轮" in latest


def test_an_answer_that_gets_less_room_than_asked_for_is_shortened_and_said_so() -> None:
    model = ScriptedModel(context_length=100)
    events = ask(session_of(model), "问" * 60)
    assert events[0] == AnswerShortened(40)
    assert model.sent[0][1].max_new_tokens == 40


def test_an_answer_with_room_enough_is_not_remarked_on() -> None:
    assert AnswerShortened not in kinds(ask(session_of(ScriptedModel(context_length=103)), "三个字"))


def test_a_question_over_the_whole_context_is_refused_unsent_and_unrecorded() -> None:
    model, journal = ScriptedModel(context_length=100), Journal()
    session = session_of(model, recorder=journal)
    with pytest.raises(UsageError):
        ask(session, "问" * 90)
    assert (model.sent, journal.entries, session.conversation.turns) == ([], [], ())


def test_a_single_turn_template_is_remarked_on_once_a_session() -> None:
    session = session_of(template=Form(multi_turn=False, name="literature"))
    events = [kinds(ask(session, question)) for question in "一二三"]
    assert [SingleTurnTemplate in each for each in events] == [False, True, False]


@pytest.mark.parametrize("changes", [{"remember_history": False}, {"template": Form(multi_turn=True)}])
def test_a_template_that_sees_what_it_was_trained_on_is_not_remarked_on(changes: dict[str, Any]) -> None:
    session = session_of(**{"template": Form(multi_turn=False), **changes})
    assert all(SingleTurnTemplate not in kinds(ask(session, question)) for question in "一二三")
