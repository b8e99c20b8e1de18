"""A sessions file in which anything may stand: no session hides the others, and every failure is a documented one."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from fuzzing import DEEP, EXAMPLES, fuzz
from hypothesis import strategies as st
from stored_sessions import begin, last_turns

from medchat.api import Finish, Turn
from medchat.errors import CheckpointError, MedchatError
from medchat.store import SessionFilter, SessionStore


def garble(path: Path, table: str, column: str, value: object, as_text: bool = False) -> None:
    """Put `value` into one row, past what the tables allow, as a damaged disk would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        shown = "CAST(? AS TEXT)" if as_text else "?"
        with suppress(sqlite3.IntegrityError):  # some values no table takes
            connection.execute(
                f"UPDATE {table} SET {column} = {shown} WHERE rowid = (SELECT min(rowid) FROM {table})",
                (value,),
            )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.db"
    with SessionStore.open(path) as store:
        for name in ("坏的", "好的"):
            session = begin(store, name)
            store.append_turn(session, Turn(f"{name}问题", "答"))
            store.append_turn(session, Turn("追问", "答"))
            store.append_turn(session, Turn("改问", "答"), instead_of=last_turns(store, session))
            store.undo(session)
        store.remember_input("问")
        store.mark_seen("disclaimer")
    return path


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("created", 1e300),
        ("updated", -1e300),
        ("updated", "yesterday"),
        ("created", float("inf")),
        ("adapters", "[" * DEEP),
        ("adapters", "[1]"),
        ("adapters", b"\xff"),
        ("system", 5),
        ("model", b"\xff\xfe"),
        ("name", b"\xff"),
        ("id", b"\xff"),
    ],
)
def test_one_bad_row_hides_no_session(path: Path, column: str, value: object) -> None:
    garble(path, "session", column, value)
    with SessionStore.open(path) as store:
        records = store.list()
        assert len(records) == 2 and "好的" in [record.name for record in records]
        assert store.get("好的").first_question == "好的问题"
        assert store.latest() is not None
        json.dumps([record.created.isoformat() for record in records], allow_nan=False)


def test_what_cannot_be_read_is_said_to_be_damaged(path: Path) -> None:
    garble(path, "session", "adapters", "[" * DEEP)
    garble(path, "turn", "finish", "vanished")
    with SessionStore.open(path) as store:
        assert [store.get(name).damaged for name in ("坏的", "好的")] == [True, False]
        (bad,), (good,) = (store.turns(store.get(name).id) for name in ("坏的", "好的"))
        assert (bad.damaged, bad.turn) == (True, Turn("坏的问题", "答", Finish.ERROR))
        assert not good.damaged


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TABLE turn",
        "DROP TABLE seen",
        "ALTER TABLE session RENAME COLUMN system TO sistem",
        "ALTER TABLE turn DROP COLUMN seconds",
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = replace(sql, 'REFERENCES session', 'REFERENCES x')",
    ],
)
def test_tables_that_are_not_ours_any_more_are_damage(path: Path, harm: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(harm)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="损坏"):
        SessionStore.open(path)
    assert path.read_bytes() == before


def test_turns_follow_each_other_past_a_damaged_position(path: Path) -> None:
    for position in ("here", 2**62, b"\0"):
        garble(path, "turn", "position", position)
        with SessionStore.open(path) as store:
            session = store.get("坏的").id
            store.append_turn(session, Turn("接着问", "接着答"))
            assert Turn("接着问", "接着答") in [saved.turn for saved in store.turns(session)]


def use_everything(path: Path) -> None:
    """Call all that the program calls, each as if the calls before had gone well."""
    with SessionStore.open(path) as store:
        calls: list[Any] = [
            store.list,
            store.latest,
            lambda: store.seen("disclaimer"),
            lambda: store.mark_seen("another"),
            lambda: store.recent_inputs(),
            lambda: store.remember_input("再问"),
            lambda: store.named("好的"),
            lambda: store.get("坏的"),
            lambda: store.list(SessionFilter(model="模", with_asks=False), limit=1, skip=1),
            lambda: store.search(["一"]),
        ]
        for call in calls:
            with suppress(MedchatError):
                call()
        session = store.get("好的").id
        for call in (
            lambda: store.turns(session),
            lambda: store.conversation(session),
            lambda: store.append_turn(session, Turn("一", "二")),
            lambda: store.append_turn(session, Turn("三", "四"), instead_of=last_turns(store, session)),
            lambda: store.undo(session),
            lambda: store.restore(session),
            lambda: store.branches(session),
            lambda: store.switch(session),
            lambda: store.fork(session),
            lambda: store.rename(session, "改名"),
            lambda: store.search(["三", "四"], 0),
            lambda: store.rewrite(session, lambda text: text + "。"),
            lambda: store.add([store.transcript(session)]),
            lambda: store.change(session, backbone="a", model="b"),
            lambda: store.delete(session),
            store.delete_all,
        ):
            with suppress(MedchatError):
                call()
    SessionStore.unsaved(path).close()


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=40),
    st.sampled_from(["", "stop", "[]", "{}", "null", "[" * DEEP, '{"a":' * DEEP]),
)
NAMES = {
    "session": "id name created updated backbone model adapters template system",
    "turn": "position question answer finish created prompt_tokens reused_tokens completion_tokens seconds undone",
    "input": "text created session_id",
    "seen": "key created",
    "branch_turn": "parent depth set_aside",
}
COLUMNS = st.sampled_from([(table, name) for table, names in NAMES.items() for name in names.split(" ")])


@pytest.fixture
def copy() -> Iterator[Path]:
    """Where copies go: in memory where that can be, for each is synced to the disk many times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "copy.db"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_value_in_any_column_is_read_or_refused(path: Path, copy: Path, examples: int) -> None:
    whole = path.read_bytes()

    def read(changes: list[tuple[tuple[str, str], object, bool]]) -> None:
        for old in copy.parent.glob("copy.db*"):
            old.unlink()
        copy.write_bytes(whole)
        for (table, column), value, as_text in changes:
            garble(copy, table, column, value, as_text)
        use_everything(copy)

    changes = st.lists(st.tuples(COLUMNS, VALUES, st.booleans()), min_size=1, max_size=4)
    fuzz(read, changes, examples, MedchatError)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_file_with_any_bytes_changed_is_read_or_refused(path: Path, copy: Path, examples: int) -> None:
    whole = path.read_bytes()

    def read(case: tuple[list[tuple[int, bytes]], int]) -> None:
        for old in copy.parent.glob("copy.db*"):
            old.unlink()
        changes, cut = case
        content = bytearray(whole)
        for place, new in changes:
            content[place : place + len(new)] = new
        copy.write_bytes(content[: len(content) - cut])
        use_everything(copy)

    # Pages are full of nothing: most changes are to fall where something stands.
    used = [place for place, byte in enumerate(whole) if byte]
    places = st.sampled_from(used) | st.integers(0, len(whole))
    changes = st.lists(st.tuples(places, st.binary(min_size=1, max_size=3)), min_size=1, max_size=6)
    fuzz(read, st.tuples(changes, st.just(0) | st.integers(0, len(whole))), examples, MedchatError)


@pytest.mark.parametrize("table", ["turn_origin", "session_kind", "input"])
def test_a_table_that_goes_while_the_file_is_open_is_damage_and_said_so(path: Path, table: str) -> None:
    with SessionStore.open(path) as store:
        session = store.list()[0].id
        with sqlite3.connect(path) as other:
            other.execute(f"DROP TABLE {table}")
        with pytest.raises(CheckpointError, match="损坏"):
            store.remember_input("再问") if table == "input" else store.turns(session) and store.list()
