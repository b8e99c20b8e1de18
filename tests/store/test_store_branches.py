"""Branches: what another turn took the place of stays reachable, whatever was done in between."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stored_sessions import SECRET, begin, bytes_in, last_turns, said, ways

from medchat.api import Turn
from medchat.errors import UsageError
from medchat.store import BranchTurn, SavedTurn, SessionStore, Transcript


@pytest.fixture
def store() -> Iterator[SessionStore]:
    with SessionStore.unsaved() as store:
        yield store


def converse(store: SessionStore, session: str, questions: str) -> None:
    for question in questions:
        store.append_turn(session, Turn(question, "答"))


def instead(store: SessionStore, session: str, question: str, count: int = 1) -> None:
    store.append_turn(session, Turn(question, "答"), instead_of=last_turns(store, session, count))


def test_an_edited_turn_stands_beside_the_old_one_with_all_that_followed(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙丙丁")
    instead(store, session, "乙二", 3)
    assert said(store, session) == ["甲", "乙二"]
    assert ways(store, session) == {2: (["乙", "乙二"], 1)}
    assert store.switch(session, (2, 0))
    assert said(store, session) == list("甲乙丙丁")
    assert ways(store, session) == {2: (["乙", "乙二"], 0)}
    (point,) = store.branches(session)
    assert [way.following for way in point.alternatives] == [2, 0]


def test_the_places_of_ten_thousand_turns_are_listed_without_reading_what_was_said(
    store: SessionStore,
) -> None:
    count = 10_000
    now = datetime.now(UTC)
    line = tuple(SavedTurn(number, Turn(f"问{number}", "答" * 200), now) for number in range(1, count + 1))
    others = tuple(BranchTurn(SavedTurn(1, Turn("另问", "另答"), now), after) for after in range(count))
    (record,) = store.add([Transcript(store.get(begin(store)), line, others)])
    taken = []
    for _ in range(3):  # neighbours on the same machine only ever make it slower
        started = time.process_time()
        points = store.branches(record.id)
        taken.append(time.process_time() - started)
    assert min(taken) < 0.6  # about 0.15; 1.5 and more where each turn's text is read
    assert [point.position for point in points] == [*range(1, count + 1)]
    assert [saved.turn.question for saved in store.turns_at(points[-1])] == ["问10000", "另问"]


def test_a_branch_of_a_branch_comes_back_as_it_was_left(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙")
    instead(store, session, "子", 2)  # another beginning
    converse(store, session, "丑")
    instead(store, session, "寅")
    store.switch(session, (2, 0))  # 丑 again, beside 寅
    store.switch(session, (1, 0))
    assert said(store, session) == ["甲", "乙"]
    store.switch(session, (1, 1))
    assert said(store, session) == ["子", "丑"] and ways(store, session)[2] == (["丑", "寅"], 0)


def test_what_was_undone_is_a_branch_once_something_else_follows(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙丙")
    store.undo(session, 2)
    assert ways(store, session) == {2: (["乙"], None)}
    converse(store, session, "子")
    assert said(store, session) == ["甲", "子"] and ways(store, session) == {2: (["乙", "子"], 1)}
    assert store.switch(session) and said(store, session) == ["甲", "乙", "丙"]
    assert store.switch(session) and said(store, session) == ["甲", "子"]  # round and round


def test_an_undone_turn_can_be_chosen_like_any_other(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙丙")
    store.undo(session, 3)
    assert store.switch(session, (1, 0)) and said(store, session) == list("甲乙丙")
    assert store.restore(session) == ()


def test_the_next_way_at_the_end_is_what_was_undone_else_what_was_left_last(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙")
    store.undo(session)
    assert store.switch(session) and said(store, session) == ["甲", "乙"]
    store.undo(session)
    converse(store, session, "丙")
    store.switch(session, (2, 0))
    store.undo(session)
    assert store.switch(session) and said(store, session) == ["甲", "乙"]


def test_there_is_no_way_to_where_nothing_branches(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙")
    before = store.transcript(session)
    assert not store.switch(session)
    for where in ((0, 0), (1, 1), (2, -1), (3, 0), (99, 0)):
        assert not store.switch(session, where)
    assert store.transcript(session).turns == before.turns and store.others(session) == ()


def test_going_elsewhere_is_refused_where_another_program_wrote(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲")
    instead(store, session, "乙")
    ours = last_turns(store, session)
    converse(store, session, "别")
    assert not store.switch(session, (1, 0), expected=ours)
    assert said(store, session) == ["乙", "别"]


def test_a_longer_answer_keeps_its_place_its_branches_and_is_found(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙")
    instead(store, session, "丙")
    assert store.search(["续写"]) == ()
    (old,) = last_turns(store, session)
    assert store.extend_turn(session, Turn("丙", "答，续写"), expected=old) == 2
    assert store.turns(session)[-1].turn == Turn("丙", "答，续写")
    assert ways(store, session) == {2: (["乙", "丙"], 1)}
    assert [found.saved.turn.question for found in store.search(["续写"])] == ["丙"]


def test_a_fork_is_a_session_of_its_own_with_the_conversation_as_it_stands(store: SessionStore) -> None:
    session = begin(store, "原来的")
    converse(store, session, "甲乙")
    instead(store, session, "丙")
    copy = store.fork(session, "分出来的")
    assert said(store, copy.id) == ["甲", "丙"] == said(store, session)
    assert [saved.created for saved in store.turns(copy.id)] == [
        saved.created for saved in store.turns(session)
    ]
    assert store.branches(copy.id) == () and len(store.branches(session)) == 1
    converse(store, copy.id, "丁")
    store.delete(session)
    assert said(store, copy.id) == ["甲", "丙", "丁"]
    with pytest.raises(UsageError, match="已有名为“分出来的”"):
        store.fork(copy.id, "分出来的")
    assert len(store.list()) == 1


def test_deleting_takes_every_branch_from_the_disk(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "sessions.db") as store:
        session = begin(store)
        converse(store, session, "甲乙")
        instead(store, session, SECRET, 2)
        instead(store, session, f"{SECRET}二")
        store.undo(session)
        store.search(["甲"])
        assert SECRET.encode() in bytes_in(tmp_path)
        store.delete(session)
        assert SECRET.encode() not in bytes_in(tmp_path)
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
            assert connection.execute("SELECT count(*) FROM branch_turn").fetchone()[0] == 0


def test_masking_reaches_every_branch(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲")
    instead(store, session, "乙")
    store.rewrite(session, lambda text: text + "。")
    assert ways(store, session) == {1: (["甲。", "乙。"], 1)}


def test_a_whole_session_comes_back_with_all_its_branches(store: SessionStore) -> None:
    session = begin(store)
    converse(store, session, "甲乙丙")
    instead(store, session, "丁", 2)
    converse(store, session, "戊")
    instead(store, session, "己", 3)
    store.undo(session)
    whole = store.transcript(session)
    assert [(other.saved.turn.question, other.saved.position, other.after) for other in whole.others] == [
        ("甲", 1, 0), ("己", 1, 0), ("乙", 2, 1), ("丁", 2, 1), ("丙", 3, 3), ("戊", 3, 4),
    ]  # fmt: skip
    (copy,) = store.add([whole])
    again = store.transcript(copy.id)
    assert (again.turns, again.others) == (whole.turns, whole.others)
    assert ways(store, copy.id) == {1: (["甲", "己"], None)}


# ---------------------------------------------------------------- beside a program that knows no branches


def test_a_program_that_knows_no_branches_neither_shows_nor_deletes_them(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store)
        converse(store, session, "甲乙丙")
        instead(
            store, session, "子", 3
        )  # the whole conversation, so that only branches are left with a position
        store.undo(session)
        with closing(sqlite3.connect(path, isolation_level=None)) as before:  # as format 2 saves a turn
            before.execute("PRAGMA foreign_keys = ON")
            before.execute("DELETE FROM turn WHERE session_id = ? AND undone = 1", (session,))
            last = before.execute(
                "SELECT max(position) FROM turn WHERE session_id = ? AND typeof(position) = 'integer'"
                " AND position < 1e15",
                (session,),
            ).fetchone()[0]
            before.execute(
                "INSERT INTO turn (session_id, position, question, answer, finish, created, prompt_tokens,"
                " reused_tokens, completion_tokens, first_token_seconds, seconds)"
                " VALUES (?, ?, '旧程序', '答', 'stop', 1e10, 0, 0, 0, 0, 0)",
                (session, (last or 0) + 1),
            )
            rows = before.execute("SELECT question FROM turn WHERE undone = 0").fetchall()
            assert rows == [("旧程序",)]
        assert said(store, session) == ["旧程序"]
        assert ways(store, session) == {1: (["甲", "旧程序"], 1)}
        assert store.switch(session) and said(store, session) == ["甲", "乙", "丙"]


@pytest.mark.parametrize("question", ["甲", "乙"])
def test_a_branch_whose_former_turn_another_program_deleted_stays_reachable(
    tmp_path: Path, question: str
) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store)
        converse(store, session, "甲乙丙")
        instead(store, session, "丁")
        with closing(sqlite3.connect(path, isolation_level=None)) as before:
            before.execute("DELETE FROM turn WHERE question = ?", (question,))
        left = [one for one in "甲乙" if one != question]
        assert said(store, session) == [*left, "丁"]
        found = {saved.turn.question for point in store.branches(session) for saved in store.turns_at(point)}
        assert "丙" in found
        assert store.switch(session) and said(store, session)[-1] == "丙"
