"""The session store as a caller sees it: what goes in comes out, in order, exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.api import Conversation, Finish, Turn
from medchat.errors import UsageError
from medchat.store import SavedTurn, SessionKind, SessionRecord, SessionStore
from medchat.store.records import looks_like_an_id, new_id
from medchat.store.sessions import INPUT_LIMIT

#: Every string Python can hold, NUL and lone surrogates among them.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore.open(tmp_path / "sessions.db") as opened:
        yield opened


def begin(store: SessionStore, name: str | None = None) -> SessionRecord:
    return store.create("chatglm", "/models/med", ["/lora"], "med", "你是医生助手", name=name)


def turn(number: int) -> Turn:
    return Turn(f"问题{number}", f"回答{number}")


def test_a_session_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "sessions.db") as store:
        record = begin(store, "头痛")
        store.append_turn(record.id, Turn("头痛怎么办？", "多休息", Finish.CANCELLED))
    with SessionStore.open(tmp_path / "sessions.db") as store:
        again = store.get("头痛")
        assert (again.id, again.turns, again.first_question) == (record.id, 1, "头痛怎么办？")
        assert (again.backbone, again.model, again.adapters) == ("chatglm", "/models/med", ("/lora",))
        assert store.conversation(again.id) == Conversation(
            (Turn("头痛怎么办？", "多休息", Finish.CANCELLED),), "你是医生助手"
        )


def test_what_a_turn_cost_is_kept_with_it(store: SessionStore) -> None:
    record = begin(store)
    cost = SavedTurn(0, turn(0), record.created, 11, 7, 5, 0.25, 1.5)
    assert store.append_turn(record.id, turn(1), cost) == 1
    (saved,) = store.turns(record.id)
    assert (saved.prompt_tokens, saved.reused_tokens, saved.completion_tokens) == (11, 7, 5)
    assert (saved.first_token_seconds, saved.seconds) == (0.25, 1.5)
    assert saved.created >= record.created
    assert saved.created.tzinfo is not None


def test_the_engines_own_statistics_are_a_cost(store: SessionStore) -> None:
    from medchat.chat.events import TurnStats

    record = begin(store)
    store.append_turn(record.id, turn(1), TurnStats(prompt_tokens=3, completion_tokens=4, seconds=2.0))
    assert store.turns(record.id)[0].completion_tokens == 4


@given(question=ANY_TEXT, answer=ANY_TEXT, system=ANY_TEXT, line=ANY_TEXT)
def test_any_text_comes_back_exactly(question: str, answer: str, system: str, line: str) -> None:
    with SessionStore.unsaved() as store:
        record = store.create(question, answer, [line], system, system)
        store.append_turn(record.id, Turn(question, answer))
        store.remember_input(line)
        assert store.conversation(record.id) == Conversation((Turn(question, answer),), system)
        again = store.get(record.id)
        assert (again.backbone, again.model, again.adapters, again.template) == (
            question, answer, (line,), system,
        )  # fmt: skip
        assert again.first_question == question
        assert store.recent_inputs() == (line,)


def test_ids_are_dated_distinct_and_easy_to_read() -> None:
    ids = {new_id() for _ in range(200)}
    assert len(ids) > 190
    assert all(looks_like_an_id(one) and not set(one[9:]) & set("01lio") for one in ids)


def test_an_id_drawn_twice_is_drawn_again(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["20261120-aaaa", "20261120-aaaa", "20261120-bbbb"])
    monkeypatch.setattr("medchat.store.session_rows.new_id", lambda: next(drawn))
    assert [begin(store).id, begin(store).id] == ["20261120-aaaa", "20261120-bbbb"]


def test_a_session_is_found_by_id_name_and_beginning(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["20261119-aabb", "20261120-aacc", "20261120-ddee"])
    monkeypatch.setattr("medchat.store.session_rows.new_id", lambda: next(drawn))
    first, second, third = begin(store, "感冒"), begin(store), begin(store)
    assert store.get("20261119-aabb").id == store.get("感冒").id == store.get("20261119").id == first.id
    assert store.get("aac").id == second.id
    assert store.get(" ddee ").id == third.id
    with pytest.raises(UsageError, match="2 个会话") as caught:
        store.get("20261120")
    assert second.id in caught.value.what and third.id in caught.value.what


@pytest.mark.parametrize("reference", ["", "无此会话", "2099", "%", "_", "\udc80", "a\0"])
def test_a_reference_to_nothing_says_how_to_list_sessions(store: SessionStore, reference: str) -> None:
    store.append_turn(begin(store).id, turn(1))
    with pytest.raises(UsageError, match="没有会话") as caught:
        store.get(reference)
    assert "medchat sessions list" in caught.value.remedy


def test_a_slip_of_the_pen_is_answered_with_the_name_meant(store: SessionStore) -> None:
    begin(store, "blood-pressure")
    with pytest.raises(UsageError) as caught:
        store.get("blood-presure")
    assert "blood-pressure" in caught.value.remedy


def test_names_are_unique_and_the_same_however_their_accents_are_typed(store: SessionStore) -> None:
    record = begin(store, "caf\u00e9")
    found = store.named("cafe\u0301")
    assert found is not None and found.id == record.id
    with pytest.raises(UsageError, match="已有"):
        begin(store, " cafe\u0301 ")
    other = begin(store, "other")
    with pytest.raises(UsageError, match="已有"):
        store.rename(other.id, "caf\u00e9")
    assert store.rename(other.id, "other").name == "other"
    assert store.rename(other.id, "第二个").name == "第二个"
    assert store.named("other") is None


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "\x1b[2J", "x" * 101, "20261120-k3f9", "a\u202eb", "\ud800"]
)
def test_what_cannot_be_a_name_is_refused(store: SessionStore, name: str) -> None:
    with pytest.raises(UsageError):
        begin(store, name)
    assert store.list() == ()


def test_the_latest_session_is_the_one_changed_last(store: SessionStore) -> None:
    assert store.latest() is None
    first, second = begin(store), begin(store)
    store.append_turn(first.id, turn(1))
    store.append_turn(second.id, turn(2))
    store.append_turn(first.id, turn(3))
    latest = store.latest()
    assert latest is not None and latest.id == first.id
    assert [record.id for record in store.list()] == [first.id, second.id]


def test_a_turn_of_a_chat_makes_a_chat_of_an_ask_and_of_nothing_else(store: SessionStore) -> None:
    kinds = (SessionKind.CHAT, SessionKind.ASK, SessionKind.IMPORTED)
    records = [store.create("b", "m", kind=kind) for kind in kinds]
    for record in records:
        store.append_turn(record.id, turn(1))
    assert [store.get(record.id).kind for record in records] == [*kinds]
    for record in records:
        store.append_turn(record.id, turn(2), in_chat=True)
    assert [store.get(record.id).kind for record in records] == ["chat", "chat", "imported"]


def test_a_chat_that_makes_the_answer_of_an_ask_longer_makes_a_chat_of_it(store: SessionStore) -> None:
    record = store.create("b", "m", kind=SessionKind.ASK)
    store.append_turn(record.id, turn(1))
    store.extend_turn(record.id, turn(2), expected=(1, turn(1)))
    assert store.get(record.id).kind is SessionKind.ASK
    store.extend_turn(record.id, turn(3), expected=(1, turn(2)), in_chat=True)
    assert store.get(record.id).kind is SessionKind.CHAT


def test_sessions_left_without_a_word_are_not_listed_unless_named(store: SessionStore) -> None:
    begin(store)
    assert store.list() == ()
    named = begin(store, "稍后再问")
    assert [record.id for record in store.list()] == [named.id]


def test_going_on_with_another_model_is_noted(store: SessionStore) -> None:
    record = begin(store)
    changed = store.change(record.id, backbone="llama", model="/other", adapters=["a", "b"])
    assert (changed.backbone, changed.model, changed.adapters, changed.system) == (
        "llama", "/other", ("a", "b"), "",
    )  # fmt: skip


def test_writing_to_a_deleted_session_says_so(store: SessionStore) -> None:
    record = begin(store)
    store.delete(record.id)
    for write in (
        lambda: store.append_turn(record.id, turn(1)),
        lambda: store.extend_turn(record.id, turn(1), expected=(1, turn(1))),
        lambda: store.switch(record.id),
        lambda: store.fork(record.id),
    ):
        with pytest.raises(UsageError, match="不存在或已被删除"):
            write()
    with pytest.raises(UsageError):
        store.undo(record.id)
    with pytest.raises(UsageError):
        store.conversation(record.id)
    with pytest.raises(UsageError):
        store.delete(record.id)


def test_the_editors_history_is_newest_first_without_repeats_in_a_row(store: SessionStore) -> None:
    for line in ("一", "二", "二", "一"):
        store.remember_input(line)
    assert store.recent_inputs() == ("一", "二", "一")
    assert store.recent_inputs(limit=1) == ("一",)


def test_the_editors_history_does_not_grow_without_end(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert INPUT_LIMIT >= 1000
    monkeypatch.setattr("medchat.store.sessions.INPUT_LIMIT", 3)
    for number in range(10):
        store.remember_input(str(number))
    assert store.recent_inputs() == ("9", "8", "7")


def test_what_was_seen_stays_seen_even_when_everything_is_deleted(store: SessionStore) -> None:
    assert not store.seen("disclaimer-1")
    store.mark_seen("disclaimer-1")
    store.mark_seen("disclaimer-1")
    store.delete_all()
    assert store.seen("disclaimer-1")
    assert not store.seen("disclaimer-2")


def test_an_unsaved_store_leaves_nothing_on_disk_and_knows_what_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "data" / "sessions.db"
    with SessionStore.unsaved(path) as store:
        assert not store.seen("disclaimer-1")
        store.append_turn(begin(store).id, turn(1))
        assert store.path is None
        assert store.delete_all() == 1
    assert list(tmp_path.iterdir()) == []
    with SessionStore.open(path) as store:
        store.mark_seen("disclaimer-1")
    before = sorted(path.parent.iterdir())
    with SessionStore.unsaved(path) as store:
        assert store.seen("disclaimer-1")
        store.mark_seen("another")
    assert sorted(path.parent.iterdir()) == before
    with SessionStore.open(path) as store:
        assert not store.seen("another")


def test_several_threads_may_write_at_once(store: SessionStore) -> None:
    record = begin(store)

    def write(start: int) -> None:
        for number in range(start, start + 10):
            store.append_turn(record.id, turn(number))

    threads = [threading.Thread(target=write, args=(100 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [saved.position for saved in store.turns(record.id)] == list(range(1, 41))
