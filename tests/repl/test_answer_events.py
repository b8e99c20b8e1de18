"""The events of an answer mean the same wherever answers are shown."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from medchat.api import Finish, Notice, Turn
from medchat.chat import events
from medchat.repl.answer_events import AnswerEvents

#: One of each, in the order of a turn.
EVENTS: tuple[events.Event, ...] = (
    events.QuestionChosen("头痛怎么办？"),
    events.Advice(Notice("请拨打 120", urgent=True, short="拨打 120")),
    events.Advice(Notice("只是提醒")),
    events.HistoryDropped(3),
    events.AnswerShortened(5),
    events.SingleTurnTemplate("bare"),
    events.SettingsRejected(("top_k",)),
    events.ReasoningPiece("想"),
    events.AnswerPiece("也是思考"),
    events.AnswerRestarted(),
    events.AnswerPiece("多休息"),
    events.LoopStopped(),
    events.AnswerReviewed(Notice("回答与提醒不符")),
    events.AnswerFinished(Turn("头痛怎么办？", "多休息", Finish.STOP), events.TurnStats()),
    events.OldAnswerKept(Finish.CANCELLED),
)


class Shown(AnswerEvents):
    """Remembers what it was told to show."""

    def __init__(self, *, long: bool) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self._long = long

    def show_piece(self, text: str) -> None:
        self.calls.append(("piece", text))

    def show_reasoning(self, text: str) -> None:
        self.calls.append(("reasoning", text))

    def show_restart(self, remark: str) -> None:
        self.calls.append(("restart", remark))

    def show_advice(self, advice: events.Advice) -> None:
        self.calls.append(("advice", advice.notice.text))

    def show_question(self, question: str) -> None:
        self.calls.append(("question", question))

    def show_remark(self, text: str) -> None:
        self.calls.append(("remark", text))

    def show_notice(self, text: str, *, urgent: bool) -> None:
        self.calls.append(("notice", text, urgent))

    def fills_screen(self) -> bool:
        return self._long


def shown(*, long: bool = False) -> Shown:
    view = Shown(long=long)
    for event in EVENTS:
        view.take(event)
    return view


def test_each_event_of_a_turn_is_shown_or_kept() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(events.Event))
    view = shown()
    kinds = [call[0] for call in view.calls]
    assert kinds == [
        "question",
        "advice",
        "advice",
        *["remark"] * 4,
        "reasoning",
        "piece",
        "restart",
        "piece",
    ]
    remarks = [call[1] for call in view.calls if call[0] == "remark"]
    assert all(word in remark for word, remark in zip(("3", "5", "bare", "top_k"), remarks, strict=True))
    assert view.looped and view.dropped_turns == 3 and view.answered and view.old_kept


def test_what_turned_out_to_be_reasoning_is_no_part_of_the_answer() -> None:
    view = shown()
    assert view.text == "多休息"
    (restart,) = [call[1] for call in view.calls if call[0] == "restart"]
    assert "4 字" in restart


@pytest.mark.parametrize("long", [False, True])
def test_an_urgent_notice_comes_again_in_short_where_a_long_answer_hid_it(long: bool) -> None:
    view = shown(long=long)
    before = len(view.calls)
    view.show_notices_again()
    again = [("notice", "拨打 120", True)] if long else []
    assert view.calls[before:] == [("notice", "回答与提醒不符", False), *again]


def test_an_event_that_nobody_knows_is_not_passed_over() -> None:
    with pytest.raises(AssertionError):
        Shown(long=False).take(object())  # type: ignore[arg-type]
