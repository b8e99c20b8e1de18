"""The search index: which turns contain which characters, and in what order.

SQLite's own tokenizers find no Chinese word of two characters. For each turn this index (FTS5, which many
builds of SQLite have) holds the bigrams of its text in order, then each character once. A phrase of bigrams
is found exactly, however common its characters are; a single character, often in nearly every turn, is one
word of the index. It is created and updated when the user searches: saving a turn costs nothing, and turns
written by an older MedChat are found as well.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import add

from medchat.store.records import restored

#: Characters indexed in one transaction, about half a second in which other programs wait to write, and the
#: least number that a turn counts as.
_STEP, _LEAST = 500_000, 250
_BLANKS = re.compile(" {2,}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CODE_LENGTH = 4

_TABLES = (
    "CREATE TABLE IF NOT EXISTS indexed_turn (turn_id INTEGER PRIMARY KEY, created REAL NOT NULL)",
    # Missing turns are found by these two columns, without reading the texts.
    "CREATE INDEX IF NOT EXISTS turn_by_creation ON turn(created)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS indexed_text USING fts5(text, content='', tokenize='ascii')",
)
#: With FTS5's defaults (4 and 16) half the time of a first search is spent on merging parts of the index.
_MERGING = (("automerge", 16), ("crisismerge", 64))
#: Of the former index, which had unordered bigrams. An older MedChat that is still running recreates it.
_FORMER_TABLES = ("search_turn", "search_pairs")

_SAME_TURN = (
    "(SELECT 1 FROM {other} WHERE {other}.{key} = {table}.{own} AND {other}.created = {table}.created)"
)
_NOT_INDEXED = "WHERE NOT EXISTS " + _SAME_TURN.format(
    other="indexed_turn", key="turn_id", table="turn", own="id"
)
_NOT_SAVED = "WHERE NOT EXISTS " + _SAME_TURN.format(
    other="turn", key="id", table="indexed_turn", own="turn_id"
)


def folded(text: str) -> str:
    """Return a text normalised for comparison: case and width folded, white space as one space."""
    return _BLANKS.sub(" ", "".join(map(folded_character, text)))


@lru_cache(maxsize=1 << 16)
def folded_character(character: str) -> str:
    """Return the normalised form of one character; may be several characters, or none."""
    return " " if character.isspace() else unicodedata.normalize("NFKC", character).casefold()


def update(connection: sqlite3.Connection) -> int:
    """Index one batch of new turns, and return how many are left: 0 without FTS5."""
    _drop(connection, _FORMER_TABLES)
    if not exists(connection):
        try:
            for statement in _TABLES:
                connection.execute(statement)
            connection.executemany("INSERT INTO indexed_text (indexed_text, rank) VALUES (?, ?)", _MERGING)
        except sqlite3.OperationalError as error:
            if "fts5" not in str(error):
                raise
            forget_all(connection)
            return 0
    saved, indexed = _state(connection, "turn"), _state(connection, "indexed_turn")
    if saved == indexed:
        return 0
    # Turns that an older MedChat deleted or replaced: without their text they cannot be removed.
    if connection.execute(f"SELECT 1 FROM indexed_turn {_NOT_SAVED} LIMIT 1").fetchone():
        connection.execute("INSERT INTO indexed_text (indexed_text) VALUES ('delete-all')")
        connection.execute("DELETE FROM indexed_turn")
        indexed = (0, 0.0)
    return saved[0] - indexed[0] - _index_step(connection)


def forget(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> None:
    """Remove the turns of a condition on table `turn` from the index, before they are deleted or changed.

    Their words stay on the disk until `erase`.
    """
    _drop(connection, _FORMER_TABLES)
    if not exists(connection):
        return
    try:
        _take_out(connection, condition, values)
    except sqlite3.DatabaseError:  # a damaged index can be rebuilt
        forget_all(connection)


def erase(connection: sqlite3.Connection) -> None:
    """Rewrite the index without removed turns, which until then are only marked as deleted."""
    if not exists(connection):
        return
    try:
        connection.execute("INSERT INTO indexed_text (indexed_text) VALUES ('optimize')")
    except sqlite3.DatabaseError:
        forget_all(connection)


def forget_all(connection: sqlite3.Connection) -> None:
    """Drop the index; the next search rebuilds it."""
    _drop(connection, (*_FORMER_TABLES, "indexed_turn", "indexed_text"))


def exists(connection: sqlite3.Connection) -> bool:
    """Whether there is an index. There is none before the first search, nor without FTS5."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'indexed_text'").fetchone()
    return found is not None


def turns_holding(connection: sqlite3.Connection, terms: Sequence[str]) -> Iterator[int]:
    """Yield the ids of the indexed turns that contain every folded term, newest first."""
    query = " AND ".join(sorted({_phrase(term) for term in terms}))
    for row in connection.execute(
        "SELECT rowid FROM indexed_text WHERE indexed_text MATCH ? ORDER BY rowid DESC", (query,)
    ):
        yield row[0]


# ---------------------------------------------------------------- inside


def _drop(connection: sqlite3.Connection, tables: Sequence[str]) -> None:
    for table in tables:
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def _state(connection: sqlite3.Connection, table: str) -> tuple[int, float]:
    """Return a summary that differs if the index is outdated, without comparing row by row."""
    row = connection.execute(f"SELECT count(*), total(created) FROM {table}").fetchone()
    return row[0], row[1]


def _index_step(connection: sqlite3.Connection) -> int:
    """Index turns until a batch is full and return how many."""
    done: list[tuple[int, float]] = []
    missing = connection.execute(f"SELECT id, created, question, answer FROM turn {_NOT_INDEXED} ORDER BY id")
    size = 0
    for row in missing:
        text = _indexed(row)
        connection.execute("INSERT INTO indexed_text (rowid, text) VALUES (?, ?)", (row["id"], text))
        done.append((row["id"], row["created"]))
        size += max(_LEAST, len(text) // (2 * _CODE_LENGTH))
        if size >= _STEP:
            break
    missing.close()  # close the unfinished cursor before its tables change
    connection.executemany("INSERT INTO indexed_turn VALUES (?, ?)", done)
    return len(done)


def _take_out(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> None:
    rows = connection.execute(
        f"SELECT * FROM turn WHERE ({condition}) AND id IN (SELECT turn_id FROM indexed_turn)", tuple(values)
    ).fetchall()
    connection.executemany(
        "INSERT INTO indexed_text (indexed_text, rowid, text) VALUES ('delete', ?, ?)",
        [(row["id"], _indexed(row)) for row in rows],
    )
    connection.executemany("DELETE FROM indexed_turn WHERE turn_id = ?", [(row["id"],) for row in rows])


def _indexed(row: sqlite3.Row) -> str:
    """Return the words of the index for a turn: the bigrams of its texts, then each character once."""
    words: list[str] = []
    characters: list[str] = []
    for column in ("question", "answer"):
        codes = list(map(_code, folded(restored(row[column]))))
        words += map(add, codes, codes[1:])
        characters += codes
    return " ".join([*words, *dict.fromkeys(characters)])


def _phrase(term: str) -> str:
    """Return the query for a term: the phrase of its bigrams, or its one character."""
    if len(term) == 1:
        return f'"{_code(term)}"'
    codes = [_code(character) for character in term]
    return '"' + " ".join(first + second for first, second in pairwise(codes)) + '"'


@lru_cache(maxsize=1 << 16)
def _code(character: str) -> str:
    """Return four letters or digits for a character, so that SQLite's tokenizer does not split them."""
    number, digits = ord(character), ""
    for _ in range(_CODE_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
