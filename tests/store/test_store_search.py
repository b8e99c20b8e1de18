"""Search: every planted word is found, and nothing else; deleted words leave the index too."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path

import pytest
from child_process import child_environment, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_sessions import SECRET, begin, bytes_in, fill, last_turns

from medchat.api import Turn
from medchat.store import AnswerOrigin, Excerpt, SavedTurn, SessionStore, Transcript

#: Common characters, so that every pair of a planted word is in many turns that do not hold the word.
COMMON = "头痛发热咳嗽医生请问怎么办的了是我在有"


#: Ends in the transaction that follows the first step.
KILLED_SEARCH = """
import signal, sys
from pathlib import Path
from medchat.store import SessionStore

signal.signal(signal.SIGALRM, signal.SIG_DFL)
with SessionStore.open(Path(sys.argv[1])) as store:
    store.search(["头痛"], 1, lambda left: signal.setitimer(signal.ITIMER_REAL, 0.005) and None)
"""


@pytest.fixture
def store() -> SessionStore:
    return SessionStore.unsaved()


def questions(store: SessionStore, *terms: str, limit: int = 0) -> list[str]:
    return [found.saved.turn.question for found in store.search(terms, limit)]


@pytest.mark.parametrize("word", ["铍", "铍镉", "心梗了", "阿司匹林肠溶片剂"])
def test_planted_words_are_found_and_nothing_else(store: SessionStore, word: str) -> None:
    drawn = random.Random(len(word))
    session = begin(store)
    planted = set()
    for number in range(600):
        # The word's own characters in other places are no match.
        text = "".join(drawn.choices(COMMON + word[:-1], k=60)).replace(word, "")
        if number % 37 == 0:
            at = drawn.randrange(len(text))
            text = text[:at] + word + text[at:]
            planted.add(f"第{number}问")
        store.append_turn(session, Turn(f"第{number}问", text))
    assert set(questions(store, word)) == planted


def steps_to_search(store: SessionStore, word: str) -> int:
    """Return how many functions are called for a search: the same on every machine."""
    store.search([word])  # what is looked up once
    calls = count()
    sys.setprofile(lambda frame, event, argument: event == "call" and next(calls))
    try:
        store.search([word])
    finally:
        sys.setprofile(None)
    return next(calls)


def add_turns(store: SessionStore, answers: list[str]) -> None:
    record = store.create("echo", "none")
    store.add([Transcript(record, tuple(SavedTurn(1, Turn("", text), record.created) for text in answers))])


@pytest.mark.parametrize("word", ["头", "头医", "头痛头", "头痛发热咳嗽医生"])
def test_no_search_takes_longer_for_more_turns_than_it_chooses_among(store: SessionStore, word: str) -> None:
    # Every character and every pair of the word in every turn; the single character is found in all of them.
    pairs = "。".join(map("".join, pairwise(word))).replace("头医", "头。医")
    add_turns(store, [f"{word[:1]}。{pairs}"] * 500)
    few = steps_to_search(store, word)
    add_turns(store, [f"{word[:1]}。{pairs}"] * 1500)
    assert steps_to_search(store, word) == few


@pytest.mark.parametrize(
    ("written", "sought"),
    [
        ("ＣＴ检查", "ct检查"),
        ("Chest  Pain\n now", "chest pain now"),
        ("Straße", "STRASSE"),
        ("㎎", "mg"),
        ("头\n痛", "头 痛"),
    ],
)
def test_case_width_and_white_space_do_not_matter(store: SessionStore, written: str, sought: str) -> None:
    store.append_turn(begin(store), Turn("问", f"前{written}后"))
    (found,) = store.search([sought])
    assert found.excerpts == (Excerpt(True, f"前{written}后", ((1, 1 + len(written)),)),)


def test_every_term_must_be_there_and_a_question_counts_more(store: SessionStore) -> None:
    session = begin(store)
    for question, said in (
        ("头痛", "看医生"),
        ("别的", "头痛头痛，看医生"),
        ("头痛", "休息"),
        ("胸闷", "看医生"),
    ):
        store.append_turn(session, Turn(question, said))
    assert questions(store, "头痛", "医生") == ["别的", "头痛"] or questions(store, "头痛", "医生") == [
        "头痛",
        "别的",
    ]
    assert questions(store, "痛看") == []  # no match over the border of question and answer
    assert questions(store, "头痛", limit=1) == ["头痛"]


def test_excerpts_show_what_stands_around_the_match(store: SessionStore) -> None:
    store.append_turn(begin(store), Turn("问", "甲" * 60 + "心梗" + "乙" * 60))
    (found,) = store.search(["心梗"])
    assert found.excerpts == (Excerpt(True, "…" + "甲" * 24 + "心梗" + "乙" * 24 + "…", ((25, 27),)),)


@pytest.mark.parametrize(
    ("text", "terms", "marked"),
    [
        ("发热三天，咳嗽", ("咳嗽", "发热"), ["发热", "咳嗽"]),
        ("甲" * 30 + "发热" + "乙" * 90 + "ＣＴ" + "丙" * 30, ("发热", "ct"), ["发热", "ＣＴ"]),
        ("甲" * 30 + "发热" + "乙" * 30 + "咳嗽", ("发热", "咳嗽"), ["发热", "咳嗽"]),
        ("胸口疼痛", ("胸口疼", "疼痛"), ["胸口疼痛"]),
        ("发热发热", ("发热", "发热", "热"), ["发热"]),
    ],
)
def test_each_term_is_shown_and_marked_where_it_first_stands(
    store: SessionStore, text: str, terms: tuple[str, ...], marked: list[str]
) -> None:
    store.append_turn(begin(store), Turn(text, "答"))
    (found,) = store.search(terms)
    (excerpt,) = found.excerpts
    assert [excerpt.text[begin:end] for begin, end in excerpt.matches] == marked
    assert all(part in text for part in excerpt.text.split("…")) and len(excerpt.text) <= 48 * 2 + 8


@pytest.mark.parametrize(
    ("question", "terms", "shown"),
    [
        ("头痛怎么办", ("头痛", "休息"), [(False, ["头痛"]), (True, ["休息"])]),
        ("头痛怎么办", ("休息", "头痛", "喝水"), [(False, ["头痛"]), (True, ["休息", "喝水"])]),
        ("要休息吗", ("休息",), [(False, ["休息"])]),
        ("头痛怎么办", ("休息", "喝水"), [(True, ["休息", "喝水"])]),
    ],
)
def test_a_term_that_only_the_other_half_of_a_turn_holds_has_its_excerpt(
    store: SessionStore, question: str, terms: tuple[str, ...], shown: list[tuple[bool, list[str]]]
) -> None:
    store.append_turn(begin(store), Turn(question, "多休息，多喝水，头不晕再走"))
    (found,) = store.search(terms)
    marked = [
        (part.in_answer, [part.text[begin:end] for begin, end in part.matches]) for part in found.excerpts
    ]
    assert marked == shown


def test_nothing_is_found_for_nothing(store: SessionStore) -> None:
    store.append_turn(begin(store), Turn("问", "答"))
    assert store.search([]) == store.search(["  "]) == ()


def elsewhere(store: SessionStore, text: str) -> dict[str, bool]:
    return {found.saved.turn.question: found.elsewhere for found in store.search([text])}


def test_turns_of_every_branch_are_found_and_said_to_be_elsewhere_and_deleted_ones_are_not(
    store: SessionStore,
) -> None:
    session = begin(store)
    store.append_turn(session, Turn("甲一", "子"))
    store.append_turn(session, Turn("甲二", "丑"))
    assert questions(store, "甲") == ["甲二", "甲一"]
    store.undo(session)
    assert elsewhere(store, "甲") == {"甲一": False, "甲二": True}
    store.restore(session)
    assert elsewhere(store, "甲") == {"甲一": False, "甲二": False}
    store.append_turn(session, Turn("乙三", "寅"), instead_of=last_turns(store, session))
    assert elsewhere(store, "甲") == {"甲一": False, "甲二": True} and elsewhere(store, "乙") == {
        "乙三": False
    }
    assert [found.saved.position for found in store.search(["甲"])] == [2, 1]
    store.delete(session)
    assert store.search(["乙"]) == ()


def test_turns_that_another_program_wrote_or_deleted_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store)
        store.append_turn(session, Turn("甲", "一"))
        store.append_turn(session, Turn("乙", "二"))
        assert questions(store, "乙") == ["乙"]
    connection = sqlite3.connect(
        path
    )  # as a program that knows no index: the id of the last row is used again
    connection.execute("DELETE FROM turn WHERE question = '乙'")
    connection.execute(
        "INSERT INTO turn (session_id, position, question, answer, finish, created, prompt_tokens, reused_tokens,"
        " completion_tokens, first_token_seconds, seconds) VALUES (?, 2, '丙', '三', 'stop', 1e9, 0, 0, 0, 0, 0)",
        (session,),
    )
    connection.commit()
    connection.close()
    with SessionStore.open(path) as store:
        assert (
            questions(store, "丙") == ["丙"]
            and questions(store, "甲") == ["甲"]
            and store.search(["乙"]) == ()
        )


def test_indexing_goes_in_steps_that_say_how_many_are_left(store: SessionStore) -> None:
    session = begin(store)
    for number in range(2100):
        store.append_turn(session, Turn(f"{number}", "答"))
    left: list[int] = []
    assert len(store.search(["答"], 0, left.append)) == 2100
    assert left == [100]


def index_on_disk(path: Path) -> set[bytes]:
    """Return the parts of the index that hold words."""
    connection = sqlite3.connect(path)
    parts = {row[0] for row in connection.execute("SELECT block FROM indexed_text_data WHERE id > 10")}
    connection.close()
    return parts


@pytest.mark.parametrize(
    "remove",
    [
        lambda store, session: store.delete(session),
        lambda store, session: store.rewrite(session, lambda text: "某"),
    ],
    ids=["delete", "rewrite"],
)
def test_no_part_of_the_index_on_the_disk_holds_a_word_that_was_removed(
    tmp_path: Path, remove: Callable[[SessionStore, str], object]
) -> None:
    for name in ("never", "removed"):
        with SessionStore.open(tmp_path / name) as store:
            store.append_turn(begin(store), Turn("留下的", "话"))
            session = begin(store)
            if name == "removed":
                store.append_turn(session, Turn("王小明", "你好"))
            assert questions(store, "留下") == ["留下的"]
            if name == "removed":
                remove(store, session)
    assert index_on_disk(tmp_path / "removed") == index_on_disk(tmp_path / "never") != set()


def test_a_first_search_that_is_killed_goes_on_from_the_last_step(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        add_turns(store, [f"头痛{number}" for number in range(4500)])
    killed = run_python("-c", KILLED_SEARCH, str(path), environment=child_environment())
    assert killed.returncode == -signal.SIGALRM, killed.stderr
    left: list[int] = []
    with SessionStore.open(path) as store:
        assert len(store.search(["头痛"], 0, left.append)) == 4500
    assert left == [500]


def test_the_index_of_an_older_version_makes_room_and_its_words_go_with_a_deletion(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store)
        store.append_turn(session, Turn("甲", "一"))
        for removed in (lambda: store.search(["甲"]), lambda: store.delete(session)):
            connection = sqlite3.connect(path)
            connection.execute("CREATE VIRTUAL TABLE search_pairs USING fts5(pairs, content='', detail=none)")
            connection.execute("CREATE TABLE search_turn (turn_id INTEGER PRIMARY KEY, created REAL)")
            connection.commit()
            removed()
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            connection.close()
            assert not [name for name in names if name.startswith("search_")]


def test_a_deleted_word_leaves_the_index(tmp_path: Path) -> None:
    path = tmp_path / "data" / "sessions.db"
    with SessionStore.open(path) as store:
        kept = begin(store)
        store.append_turn(kept, Turn("留下的", "话"))
        gone = fill(store, SECRET)
        assert store.search([SECRET])
        store.delete(gone)
        assert store.search([SECRET]) == () and questions(store, "留下") == ["留下的"]
    assert SECRET.encode() not in bytes_in(path.parent)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM indexed_turn").fetchone()[0] == 1
    connection.close()


@settings(max_examples=60)
@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=8),
    st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=3),
)
def test_what_a_turn_holds_is_found(answers: list[str], term: str) -> None:
    with SessionStore.unsaved() as store:
        session = begin(store)
        for number, text in enumerate(answers):
            store.append_turn(session, Turn(str(number), f"{text}{term}{text}" if number % 2 else text))
        found = {found.saved.position for found in store.search([term], 0)}
    planted = {number + 1 for number in range(len(answers)) if number % 2}
    assert planted <= found


def test_rewritten_words_are_found_in_their_new_form_alone(store: SessionStore) -> None:
    session = begin(store)
    store.append_turn(session, Turn("我叫王小明", "你好"), None, AnswerOrigin(system="王小明"))
    assert store.search(["王小明"])
    store.rewrite(session, lambda text: text.replace("王小明", "某某某"))
    assert store.search(["王小明"]) == () and questions(store, "某某某") == ["我叫某某某"]
    assert store.turns(session)[0].origin.system == "某某某"


@pytest.mark.parametrize(
    "damage", ["DROP TABLE indexed_turn", "ALTER TABLE indexed_turn RENAME turn_id TO other"]
)
def test_a_damaged_index_is_made_anew_and_stops_no_deletion(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        session = begin(store)
        store.append_turn(session, Turn("甲", "一"))
        store.append_turn(session, Turn("乙", "二"))
        assert questions(store, "甲") == ["甲"]
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with SessionStore.open(path) as store:
        assert questions(store, "甲") == ["甲"]
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE indexed_turn")
    connection.commit()
    connection.close()
    with SessionStore.open(path) as store:
        (last,) = last_turns(store, session)
        store.extend_turn(session, Turn("乙", "丙"), expected=last)
        assert questions(store, "丙") == ["乙"] and store.search(["二"]) == ()
        store.delete(session)
        assert store.search(["甲"]) == ()
