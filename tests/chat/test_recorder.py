"""What is recorded: two chats on one session, answers that cannot be shown, a session with another model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, run
from typing import Any

import pytest
from child_process import child_environment, command
from cli_program import Scripted, copy_of, saved_turns
from scripted_backbone import ENDLESS, STOPPED

from medchat.api import GenerationConfig, Turn
from medchat.chat.events import AnswerContext, TurnStats
from medchat.chat.recorder import StoreRecorder
from medchat.errors import MedchatError, UsageError
from medchat.store import SavedTurn, SessionRecord, SessionStore

pytest_plugins = ("cli_program",)

CONTEXT = AnswerContext(GenerationConfig())


class Shared:
    """A saved session of two turns and the two chats that continue with it."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.id = store.create("chatglm", "/models/med").id
        for number in (1, 2):
            store.append_turn(self.id, said(number))
        self.warnings: list[str] = []
        self.one, self.other = self._recorder(), self._recorder()

    def _recorder(self) -> StoreRecorder:
        return StoreRecorder(self.store, never_called, self.store.get(self.id), self.warnings.append)

    def turns(self) -> list[Turn]:
        return [saved.turn for saved in self.store.turns(self.id)]


def never_called(store: SessionStore) -> SessionRecord:
    raise AssertionError("the session is there already")


def said(number: int, answer: str = "") -> Turn:
    return Turn(f"问{number}", answer or f"答{number}")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with SessionStore.open(tmp_path / "sessions.db") as store:
        yield Shared(store)


def test_answering_again_leaves_the_turn_another_chat_added(shared: Shared) -> None:
    shared.other.save(said(3), TurnStats(), CONTEXT)
    shared.one.save(said(2, "新"), TurnStats(), CONTEXT, instead_of=1)
    assert shared.turns() == [said(1), said(2), said(3), said(2, "新")]
    assert len(shared.warnings) == 1 and "另一个 MedChat" in shared.warnings[0]
    shared.one.save(said(2, "更新"), TurnStats(), CONTEXT, instead_of=1)  # the last one is its own again
    assert shared.turns() == [said(1), said(2), said(3), said(2, "更新")]


def test_answering_again_leaves_the_turn_another_chat_put_in_the_same_place(shared: Shared) -> None:
    shared.other.undo(1)
    shared.other.save(said(9), TurnStats(), CONTEXT)
    shared.one.save(said(2, "新"), TurnStats(), CONTEXT, instead_of=1)
    assert shared.turns() == [said(1), said(9), said(2, "新")]


@pytest.mark.parametrize("count", [1, 2])
def test_an_undo_that_would_take_another_chats_turn_is_refused(shared: Shared, count: int) -> None:
    shared.other.save(said(3), TurnStats(), CONTEXT)
    if count == 2:  # its own last turn is the last one of all, the other's is right before it
        shared.one.save(said(4), TurnStats(), CONTEXT)
    before = shared.turns()
    with pytest.raises(UsageError, match="另一个 MedChat"):
        shared.one.undo(count)
    assert shared.turns() == before
    assert shared.one.on_disk  # it continues saving


def test_each_chat_can_take_back_what_is_its_own(shared: Shared) -> None:
    shared.other.save(said(3), TurnStats(), CONTEXT)
    shared.one.save(said(4), TurnStats(), CONTEXT)
    shared.one.undo(1)
    shared.other.undo(2)
    assert shared.turns() == [said(1)]


def test_a_chat_alone_saves_answers_again_and_takes_back_without_a_warning(shared: Shared) -> None:
    shared.one.save(said(3), TurnStats(), CONTEXT)
    shared.one.save(said(3, "新"), TurnStats(), CONTEXT, instead_of=1)
    shared.one.undo(2)
    shared.one.save(said(1, "新"), TurnStats(), CONTEXT, instead_of=1)
    shared.one.save(said(5), TurnStats(), CONTEXT)
    assert shared.turns() == [said(1, "新"), said(5)] and shared.warnings == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("style", ["text", "json"])
def test_an_answer_that_cannot_be_written_is_saved_and_the_reason_said(
    scripted: Scripted, style: str
) -> None:
    question, flags = ("你好", ["--json"]) if style == "json" else (ENDLESS, [])
    with Path("/dev/full").open("wb") as full:
        done = run(
            command("ask", question, *flags, *scripted.flags),
            stdin=DEVNULL, stdout=full, stderr=PIPE, env=child_environment(PYTHONPATH=scripted.python_path), timeout=60,
            check=False,
        )  # fmt: skip
    err = done.stderr.decode()
    assert done.returncode == 1 and "无法写到标准输出" in err and "No space left" in err
    assert "内部错误" not in err and "Traceback" not in err
    (saved,) = saved_turns()
    assert saved.turn.question == question and saved.turn.answer


def test_a_session_goes_on_with_the_model_and_system_text_it_was_held_with_last(
    scripted: Scripted, tmp_path: Path
) -> None:
    other = copy_of(scripted.model, tmp_path / "另一个模型")
    scripted.run("ask", "一", "--session", "复诊")
    moved = replace(scripted, model=other)
    assert moved.run("ask", "二", "--session", "复诊", "--system", "你是药师").code == 0
    with SessionStore.open() as store:
        (record,) = store.list()
    assert (record.model, record.system, record.turns) == (str(other), "你是药师", 2)


def test_a_session_whose_new_model_said_nothing_keeps_the_old_one(scripted: Scripted, tmp_path: Path) -> None:
    other = copy_of(scripted.model, tmp_path / "另一个模型")
    scripted.run("ask", "一", "--session", "复诊")
    assert replace(scripted, model=other).run("ask", STOPPED, "--session", "复诊").code != 0
    with SessionStore.open() as store:
        (record,) = store.list()
    assert (record.model, record.turns) == (str(scripted.model), 1)


def test_an_edit_leaves_the_turns_another_chat_added(shared: Shared) -> None:
    shared.other.save(said(3), TurnStats(), CONTEXT)
    shared.one.save(said(1, "改"), TurnStats(), CONTEXT, instead_of=2)
    assert shared.turns() == [said(1), said(2), said(3), said(1, "改")]
    assert len(shared.warnings) == 1 and "另一个 MedChat" in shared.warnings[0]


def test_a_longer_answer_leaves_the_turn_another_chat_added(shared: Shared) -> None:
    shared.other.save(said(3), TurnStats(), CONTEXT)
    shared.one.extend(said(2, "更长"), TurnStats(), CONTEXT)
    assert shared.turns() == [said(1), said(2), said(3), said(2, "更长")]


def test_going_to_another_branch_is_refused_where_another_chat_added_a_turn(shared: Shared) -> None:
    shared.one.save(said(2, "新"), TurnStats(), CONTEXT, instead_of=1)
    other = StoreRecorder(shared.store, never_called, shared.store.get(shared.id), shared.warnings.append)
    other.save(said(3), TurnStats(), CONTEXT)
    before = shared.turns()
    for go in (lambda: shared.one.redo(1), lambda: shared.one.switch(2, 0)):
        with pytest.raises(UsageError, match="另一个 MedChat"):
            go()
    assert shared.turns() == before
    assert other.switch(2, 0) == (said(1), said(2))


# ---------------------------------------------------------------- a disk that fails


class Fragile(SessionStore):
    """A store whose disk fails from some call on."""

    broken = False

    def append_turn(self, *arguments: Any, **options: Any) -> int:
        if self.broken:
            raise MedchatError("disk full", "make room")
        return super().append_turn(*arguments, **options)

    def extend_turn(self, *arguments: Any, **options: Any) -> int:
        if self.broken:
            raise MedchatError("disk full", "make room")
        return super().extend_turn(*arguments, **options)

    def undo(self, *arguments: Any, **options: Any) -> tuple[SavedTurn, ...]:
        if self.broken:
            raise MedchatError("disk full", "make room")
        return super().undo(*arguments, **options)


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[tuple[Fragile, StoreRecorder, list[str]]]:
    """Two turns on the disk, with a former answer on a branch; the next writing fails."""
    warnings: list[str] = []
    with Fragile.open(tmp_path / "sessions.db") as store:
        assert isinstance(store, Fragile)
        recorder = StoreRecorder(store, lambda store: store.create("b", "m"), None, warnings.append)
        for number in (1, 2):
            recorder.save(said(number), TurnStats(), CONTEXT)
        recorder.save(said(2, "新"), TurnStats(), CONTEXT, instead_of=1)
        store.broken = True
        yield store, recorder, warnings


def held(recorder: StoreRecorder) -> tuple[list[Turn], list[Turn]]:
    whole = recorder.transcript()
    assert whole is not None
    return [saved.turn for saved in whole.turns], [other.saved.turn for other in whole.others]


@pytest.mark.parametrize(
    ("write", "then"),
    [
        (lambda r: r.save(said(3), TurnStats(), CONTEXT), [said(1), said(2, "新"), said(3)]),
        (lambda r: r.save(said(3), TurnStats(), CONTEXT, instead_of=1), [said(1), said(3)]),
        (lambda r: r.extend(said(2, "新的"), TurnStats(), CONTEXT), [said(1), said(2, "新的")]),
        (lambda r: r.undo(1), [said(1)]),
    ],
    ids=["save", "replace", "extend", "undo"],
)
def test_a_disk_that_fails_loses_nothing_that_was_said_and_no_branch(
    fragile: tuple[Fragile, StoreRecorder, list[str]],
    write: Callable[[StoreRecorder], None],
    then: list[Turn],
) -> None:
    _, recorder, warnings = fragile
    write(recorder)
    assert len(warnings) == 1 and "未保存" in warnings[0] and not recorder.on_disk
    turns, others = held(recorder)
    assert turns == then and said(2) in others
    assert recorder.redo(1) is not None or recorder.branches()


def test_a_session_deleted_meanwhile_goes_on_in_memory(
    fragile: tuple[Fragile, StoreRecorder, list[str]],
) -> None:
    store, recorder, warnings = fragile
    store.broken = False
    store.delete(store.list()[0].id)
    recorder.save(said(3), TurnStats(), CONTEXT)
    assert held(recorder) == ([said(1), said(2, "新"), said(3)], []) and len(warnings) == 1
    assert store.list() == ()
