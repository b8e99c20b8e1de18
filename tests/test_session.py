"""The chat engine with a scripted model: what the model is sent, what is recorded, and when."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medchat.api import (
    ChatModel,
    Completion,
    Conversation,
    Delta,
    Finish,
    GenerationConfig,
    Notice,
    Segment,
    Text,
    Turn,
)
from medchat.errors import MedchatError, UsageError
from medchat.session import (
    MAX_QUESTION_BYTES,
    Advice,
    Answered,
    AnswerShortened,
    ChatSession,
    Event,
    HistoryDropped,
    LoopStopped,
    NoRecorder,
    OldAnswerKept,
    Piece,
    Recorder,
    SingleTurnTemplate,
    TurnStats,
    check_question,
    repeats_without_end,
)


@dataclass(frozen=True)
class Form:
    """A template of one segment a turn."""

    stop: tuple[str, ...] = ()
    multi_turn: bool = True
    name: str = "form"

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        asked = [Text(turn.question + turn.answer) for turn in turns]
        return (*([Text(system)] if system else []), *asked, Text(question))


@dataclass
class ScriptedModel:
    """Says its pieces, one character a token; keeps what it was sent. `then` runs after the last piece.

    `stopped` is what it calls being cancelled.
    """

    pieces: Sequence[str] = ("多", "喝水")
    context_length: int = 1000
    then: Callable[[], None] | None = None
    stopped: Finish = Finish.CANCELLED
    sent: list[tuple[tuple[str, ...], GenerationConfig]] = field(default_factory=list)

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        self.sent.append((tuple(text_of(segment) for segment in segments), config))
        prompt, said = self.count(segments), 0
        for piece in self.pieces:
            if cancel.is_set():
                break
            said += len(piece)
            yield Delta(piece, said, prompt)
        if self.then is not None:
            self.then()
        yield Delta("", said, prompt, 3, self.stopped if cancel.is_set() else Finish.STOP)

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        raise NotImplementedError

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        raise NotImplementedError

    def count(self, segments: Sequence[Segment]) -> int:
        return sum(len(text_of(segment)) for segment in segments)

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def text_of(segment: Segment) -> str:
    assert isinstance(segment, Text)
    return segment.text


@dataclass
class Journal:
    """A recorder that keeps what it was told, in order."""

    entries: list[tuple[str, object]] = field(default_factory=list)

    def save(self, turn: Turn, stats: TurnStats) -> None:
        self.entries.append(("save", turn))

    def replace(self, turn: Turn, stats: TurnStats) -> None:
        self.entries.append(("replace", turn))

    def undo(self, count: int) -> None:
        self.entries.append(("undo", count))


def session_of(model: ChatModel | None = None, **changes: Any) -> ChatSession:
    """Return a session with a scripted model, the whole history sent and 100 tokens of answer."""
    template = changes.pop("template", Form())
    config = changes.pop("config", GenerationConfig(max_new_tokens=100))
    return ChatSession(model or ScriptedModel(), template, config, **changes)


def ask(session: ChatSession, question: str = "头痛？") -> list[Event]:
    return list(session.ask(question, threading.Event()))


def kinds(events: Sequence[Event]) -> list[type]:
    return [type(event) for event in events]


# ---------------------------------------------------------------- a turn


def test_the_pieces_come_in_order_and_the_answer_is_their_sum() -> None:
    session = session_of()
    events = ask(session)
    assert events[:2] == [Piece("多"), Piece("喝水")]
    assert isinstance(events[2], Answered) and events[2].turn == Turn("头痛？", "多喝水", Finish.STOP)
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
        if isinstance(event, Answered):
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
    assert isinstance(answered, Answered) and session.last_stats == answered.stats
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
        if isinstance(event, Piece):
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


def told(turns: int, length: int) -> Conversation:
    return Conversation(tuple(Turn(f"{number:02d}", "答" * (length - 2)) for number in range(turns)))


def test_the_oldest_turns_are_dropped_whole_and_it_is_said_once() -> None:
    model = ScriptedModel(context_length=200)  # 100 for the answer at most, but a quarter is kept for it
    session = session_of(model, conversation=told(10, 20))
    first = ask(session, "问题一")
    assert first[0] == HistoryDropped(3) and kinds(first).count(HistoryDropped) == 1
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


# ---------------------------------------------------------------- stopping, failing


def test_stopping_keeps_the_partial_answer() -> None:
    cancel, journal, session = threading.Event(), Journal(), session_of()
    session.recorder = journal
    events = []
    for event in session.ask("头痛？", cancel):
        events.append(event)
        cancel.set()
    partial = Turn("头痛？", "多", Finish.CANCELLED)
    assert kinds(events) == [Piece, Answered] and journal.entries == [("save", partial)]
    assert session.conversation.turns == (partial,)


def test_stopping_before_any_text_keeps_nothing() -> None:
    cancel, journal, session = threading.Event(), Journal(), session_of()
    session.recorder = journal
    cancel.set()
    assert list(session.ask("头痛？", cancel)) == []
    assert journal.entries == [] and session.conversation.turns == ()


def test_a_model_that_says_nothing_by_itself_still_makes_a_turn() -> None:
    session = session_of(ScriptedModel(()))
    assert kinds(ask(session)) == [Answered] and session.conversation.turns == (Turn("头痛？", ""),)


def failing() -> None:
    raise RuntimeError("cuda")


def test_a_model_that_fails_half_way_leaves_what_it_said_and_the_error_goes_on() -> None:
    journal = Journal()
    session = session_of(ScriptedModel(then=failing), recorder=journal)
    events = []
    with pytest.raises(RuntimeError, match="cuda"):
        for event in session.ask("头痛？", threading.Event()):
            events.append(event)  # noqa: PERF402  (extend would lose them with the error)
    assert kinds(events) == [Piece, Piece]
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

    def save(self, turn: Turn, stats: TurnStats) -> None:
        raise MedchatError("disk full")

    def replace(self, turn: Turn, stats: TurnStats) -> None:
        raise MedchatError("disk full")

    def undo(self, count: int) -> None:
        raise MedchatError("disk full")


def test_a_turn_that_could_not_be_recorded_is_never_announced() -> None:
    session = session_of(recorder=BrokenRecorder())
    events = []
    with pytest.raises(MedchatError, match="disk full"):
        for event in session.ask("头痛？", threading.Event()):
            events.append(event)  # noqa: PERF402
    assert kinds(events) == [Piece, Piece]


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


def test_without_a_seed_answering_again_stays_without_one() -> None:
    model = ScriptedModel()
    session = session_of(model)
    ask(session)
    list(session.regenerate(threading.Event()))
    assert [config.seed for _, config in model.sent] == [None, None]


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
    assert events == [*map(Piece, said), OldAnswerKept(finish)]


def test_a_new_answer_that_repeats_itself_leaves_the_old_one() -> None:
    session = session_of(ScriptedModel(("好的。",) * 200), conversation=told(1, 5), guard_loops=True)
    events = list(session.regenerate(threading.Event()))
    assert events[-2:] == [LoopStopped(), OldAnswerKept(Finish.CANCELLED)]
    assert session.conversation == told(1, 5)


# ---------------------------------------------------------------- loops


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
    assert kinds(events)[-2:] == [LoopStopped, Answered] and kinds(events).count(LoopStopped) == 1
    turn = session.conversation.turns[-1]
    assert turn.finish is Finish.CANCELLED and 240 <= len(turn.answer) <= 260
    assert journal.entries == [("save", turn)]


def test_without_the_guard_a_repeating_model_is_left_alone() -> None:
    session = session_of(endless())
    events = ask(session)
    assert LoopStopped not in kinds(events) and len(session.conversation.turns[-1].answer) == 20_000


# ---------------------------------------------------------------- questions


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
