"""The index that a search reads: which turns hold which characters, and in what order.

SQLite's own tokenizers find no Chinese word of two characters. Of each turn this index (FTS5, which many builds
of SQLite have) holds the pairs of neighbouring characters one behind the other, then each character once. A
phrase of pairs is found exactly where the text stands, however common its characters are; a single character,
often in nearly every turn, is one word of the index. It is made and brought up to date when somebody searches:
saving a turn costs nothing, and what an older MedChat wrote is found as well.
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

#: Characters indexed in one transaction, about half a second in which other programs wait to write, and as how
#: many a turn counts at least.
_STEP, _LEAST = 500_000, 250
_BLANKS = re.compile(" {2,}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CODE_LENGTH = 4

_TABLES = (
    "CREATE TABLE IF NOT EXISTS indexed_turn (turn_id INTEGER PRIMARY KEY, created REAL NOT NULL)",
    # Whether a turn is missing is seen from these two columns, without reading the texts.
    "CREATE INDEX IF NOT EXISTS turn_by_creation ON turn(created)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS indexed_text USING fts5(text, content='', tokenize='ascii')",
)
#: With FTS5's own figures (4 and 16) half the time of a first search goes into merging parts of the index.
_MERGING = (("automerge", 16), ("crisismerge", 64))
#: Of the former index, which had pairs without their order. An older MedChat that is still running makes it
#: again.
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
    """Return a text as it is compared: upper and lower case, full and half width are one, white space is a blank."""
    return _BLANKS.sub(" ", "".join(map(folded_character, text)))


@lru_cache(maxsize=1 << 16)
def folded_character(character: str) -> str:
    """Return what one character is compared as; may be several, or none."""
    return " " if character.isspace() else unicodedata.normalize("NFKC", character).casefold()


def update(connection: sqlite3.Connection) -> int:
    """Index a step's worth of turns that are not yet, and return how many are left: 0 without FTS5."""
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
    # What an older MedChat deleted, or replaced under the same id: without its text it cannot be taken out.
    if connection.execute(f"SELECT 1 FROM indexed_turn {_NOT_SAVED} LIMIT 1").fetchone():
        connection.execute("INSERT INTO indexed_text (indexed_text) VALUES ('delete-all')")
        connection.execute("DELETE FROM indexed_turn")
        indexed = (0, 0.0)
    return saved[0] - indexed[0] - _index_step(connection)


def forget(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> None:
    """Take the turns of a condition on table `turn` out of the index, before they are deleted or changed.

    Their words are on the disk until `erase`.
    """
    _drop(connection, _FORMER_TABLES)
    if not exists(connection):
        return
    try:
        _take_out(connection, condition, values)
    except sqlite3.DatabaseError:  # a damaged index holds nothing that cannot be made again
        forget_all(connection)


def erase(connection: sqlite3.Connection) -> None:
    """Write the index again without what was taken out, which until then is only marked as gone."""
    if not exists(connection):
        return
    try:
        connection.execute("INSERT INTO indexed_text (indexed_text) VALUES ('optimize')")
    except sqlite3.DatabaseError:
        forget_all(connection)


def forget_all(connection: sqlite3.Connection) -> None:
    """Drop the index; the next search makes it again."""
    _drop(connection, (*_FORMER_TABLES, "indexed_turn", "indexed_text"))


def exists(connection: sqlite3.Connection) -> bool:
    """Whether there is an index. There is none before the first search, nor where SQLite lacks FTS5."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'indexed_text'").fetchone()
    return found is not None


def turns_holding(connection: sqlite3.Connection, terms: Sequence[str]) -> Iterator[int]:
    """Yield the ids of the indexed turns that hold every folded term, newest first."""
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
    """Return what differs where the index lags behind, without comparing row by row."""
    row = connection.execute(f"SELECT count(*), total(created) FROM {table}").fetchone()
    return row[0], row[1]


def _index_step(connection: sqlite3.Connection) -> int:
    """Index turns until a step is full and return how many."""
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
    missing.close()  # not all of it was read, and the tables that it reads are about to change
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
    """Return the words of the index for a turn: the pairs of its texts, then each character once."""
    words: list[str] = []
    characters: list[str] = []
    for column in ("question", "answer"):
        codes = list(map(_code, folded(restored(row[column]))))
        words += map(add, codes, codes[1:])
        characters += codes
    return " ".join([*words, *dict.fromkeys(characters)])


def _phrase(term: str) -> str:
    """Return the query for a term: its pairs one behind the other, or its one character."""
    if len(term) == 1:
        return f'"{_code(term)}"'
    codes = [_code(character) for character in term]
    return '"' + " ".join(first + second for first, second in pairwise(codes)) + '"'


@lru_cache(maxsize=1 << 16)
def _code(character: str) -> str:
    """Return four letters or digits for a character: SQLite's tokenizer then has nothing to interpret."""
    number, digits = ord(character), ""
    for _ in range(_CODE_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
