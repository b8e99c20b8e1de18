"""Search: every planted word is found, and nothing else; deleted words leave the index too."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_sessions import SECRET, begin, bytes_in, fill, last_turns

from medchat.api import Turn
from medchat.store import AnswerOrigin, SessionStore

#: Common characters, so that every pair of a planted word stands in many turns that do not hold the word.
COMMON = "头痛发热咳嗽医生请问怎么办的了是我在有"


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
    assert found.in_answer and found.excerpt.text == f"前{written}后"
    assert found.excerpt.matches == ((1, 1 + len(written)),)


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
    assert found.excerpt.text == "…" + "甲" * 24 + "心梗" + "乙" * 24 + "…"
    assert found.excerpt.matches == ((25, 27),)


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
    excerpt = found.excerpt
    assert [excerpt.text[begin:end] for begin, end in excerpt.matches] == marked
    assert all(part in text for part in excerpt.text.split("…")) and len(excerpt.text) <= 48 * 2 + 8


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
    assert left == [1100, 100]


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
    assert connection.execute("SELECT count(*) FROM search_turn").fetchone()[0] == 1
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
    "damage", ["DROP TABLE search_turn", "ALTER TABLE search_turn RENAME turn_id TO other"]
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
    connection.execute("DROP TABLE search_turn")
    connection.commit()
    connection.close()
    with SessionStore.open(path) as store:
        (last,) = last_turns(store, session)
        store.extend_turn(session, Turn("乙", "丙"), expected=last)
        assert questions(store, "丙") == ["乙"] and store.search(["二"]) == ()
        store.delete(session)
        assert store.search(["甲"]) == ()
