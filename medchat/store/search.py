"""Searching what was said: an index of character pairs, and each hit checked against the text itself.

SQLite's own tokenizers find no Chinese word of two characters. The index (FTS5, which many builds of
SQLite have; without it every turn is read) holds the pairs of neighbouring characters of each turn, so a text
of any length narrows to the turns that hold all its pairs. It is made and brought up to date when somebody
searches: saving a turn costs nothing, and what an older MedChat wrote is found as well.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from medchat.store.records import SavedTurn, restored, turn_from

#: Matching turns, newest first, among which the best are chosen.
_RANKED = 400
#: Characters shown on either side of a match.
_CONTEXT = 24
_BLANKS = re.compile(" {2,}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

_TABLES = (
    "CREATE TABLE IF NOT EXISTS search_turn (turn_id INTEGER PRIMARY KEY, created REAL NOT NULL)",
    # Whether a turn is missing is seen from these two columns, without reading the texts.
    "CREATE INDEX IF NOT EXISTS turn_by_creation ON turn(created)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS search_pairs USING fts5(pairs, content='', detail=none, tokenize='ascii')",
)

_SAME_TURN = (
    "(SELECT 1 FROM {other} WHERE {other}.{key} = {table}.{own} AND {other}.created = {table}.created)"
)
_NOT_INDEXED = "WHERE NOT EXISTS " + _SAME_TURN.format(
    other="search_turn", key="turn_id", table="turn", own="id"
)
_NOT_SAVED = "WHERE NOT EXISTS " + _SAME_TURN.format(
    other="turn", key="id", table="search_turn", own="turn_id"
)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The first place of each term with the text around it; "…" stands where text was cut.

    `matches` are (begin, end) in `text`, in its order.
    """

    text: str
    matches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """A turn that holds every term. `in_answer` says whose words the excerpt shows.

    `elsewhere`: it was undone or is on another branch, not in the conversation as it stands.
    """

    session_id: str
    saved: SavedTurn
    in_answer: bool
    excerpt: Excerpt
    elsewhere: bool = False


def find_turns(connection: sqlite3.Connection, terms: Sequence[str], limit: int) -> tuple[FoundTurn, ...]:
    """Return up to `limit` turns that hold every term, the best first (0: every one).

    Upper and lower case, full and half width count as equal. A term may span words, but not a question and
    its answer. Only what is indexed (`update_index`) is found, everything where there is no index.
    """
    wanted = [folded for term in terms if (folded := _fold(term).strip())]
    if not wanted:
        return ()
    hits = []
    for row in _candidates(connection, wanted):
        saved = turn_from(row, row["depth"] if isinstance(row["depth"], int) else None)
        sides = (_fold(saved.turn.question), _fold(saved.turn.answer))
        if all(any(term in side for side in sides) for term in wanted):
            place = (row["session_id"], saved, row["undone"] != 0)
            hits.append((_score(sides, wanted), place, sides))
            if limit and len(hits) >= _RANKED:
                break
    hits.sort(key=lambda hit: hit[0], reverse=True)  # stable: the newer of two equal ones stays first
    return tuple(_found(*place, sides, wanted) for _, place, sides in hits[: limit or None])


def update_index(connection: sqlite3.Connection, most: int = 1000) -> int:
    """Index up to `most` turns that are not yet, and return how many are left: 0 without FTS5."""
    if not _has_index(connection):
        try:
            for statement in _TABLES:
                connection.execute(statement)
        except sqlite3.OperationalError as error:
            if "fts5" not in str(error):
                raise
            forget_all(connection)
            return 0
    if _state(connection, "turn") == _state(connection, "search_turn"):
        return 0
    # What an older MedChat deleted, or replaced under the same id: without its text it cannot be taken out.
    if connection.execute(f"SELECT 1 FROM search_turn {_NOT_SAVED} LIMIT 1").fetchone():
        connection.execute("INSERT INTO search_pairs (search_pairs) VALUES ('delete-all')")
        connection.execute("DELETE FROM search_turn")
    missing = connection.execute(f"SELECT id FROM turn {_NOT_INDEXED} ORDER BY id").fetchall()
    _index(connection, [row[0] for row in missing[:most]])
    return max(0, len(missing) - most)


def forget(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> None:
    """Take the turns of a condition on table `turn` out of the index, before they are deleted or changed."""
    if not _has_index(connection):
        return
    try:
        _take_out(connection, condition, values)
    except sqlite3.DatabaseError:  # a damaged index holds nothing that cannot be made anew
        forget_all(connection)


def _take_out(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> None:
    rows = connection.execute(
        f"SELECT * FROM turn WHERE ({condition}) AND id IN (SELECT turn_id FROM search_turn)", tuple(values)
    ).fetchall()
    connection.executemany(
        "INSERT INTO search_pairs (search_pairs, rowid, pairs) VALUES ('delete', ?, ?)",
        [(row["id"], _pairs_of(row)) for row in rows],
    )
    connection.executemany("DELETE FROM search_turn WHERE turn_id = ?", [(row["id"],) for row in rows])


def forget_all(connection: sqlite3.Connection) -> None:
    """Drop the index; the next search makes it anew."""
    connection.execute("DROP TABLE IF EXISTS search_turn")
    connection.execute("DROP TABLE IF EXISTS search_pairs")


# ---------------------------------------------------------------- the index


def _candidates(connection: sqlite3.Connection, wanted: Sequence[str]) -> Iterator[sqlite3.Row]:
    """Give the turns, newest first, that may hold every term."""
    newest = "SELECT turn.*, depth FROM turn LEFT JOIN branch_turn ON turn_id = id {} ORDER BY id DESC"
    if not _has_index(connection):
        yield from connection.execute(newest.format(""))
        return
    query = " AND ".join(sorted({part for term in wanted for part in _query(term)}))
    matching = connection.execute(
        "SELECT rowid FROM search_pairs WHERE search_pairs MATCH ? ORDER BY rowid DESC", (query,)
    )
    while group := [row[0] for row in matching.fetchmany(200)]:
        marks = ",".join("?" * len(group))
        yield from connection.execute(newest.format(f"WHERE id IN ({marks})"), group)


def _state(connection: sqlite3.Connection, table: str) -> tuple[int, float]:
    """Return what differs where the index lags behind, without comparing row by row."""
    row = connection.execute(f"SELECT count(*), total(created) FROM {table}").fetchone()
    return row[0], row[1]


def _index(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    marks = ",".join("?" * len(ids))
    rows = connection.execute(f"SELECT * FROM turn WHERE id IN ({marks})", ids).fetchall()
    connection.executemany(
        "INSERT INTO search_pairs (rowid, pairs) VALUES (?, ?)", [(row["id"], _pairs_of(row)) for row in rows]
    )
    connection.executemany(
        "INSERT INTO search_turn VALUES (?, ?)", [(row["id"], row["created"]) for row in rows]
    )


def _has_index(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'search_pairs'").fetchone()
    return found is not None


def _pairs_of(row: sqlite3.Row) -> str:
    texts = (_fold(restored(row[column])) for column in ("question", "answer"))
    return " ".join(sorted({pair for text in texts for pair in _pairs(text)}))


def _pairs(text: str) -> Iterable[str]:
    """Give the pairs of neighbouring characters, and the last one alone, as words of the index."""
    codes = [_code(character) for character in text]
    yield from (first + second for first, second in pairwise(codes))
    yield from codes[-1:]


def _query(term: str) -> list[str]:
    """Return what the index must hold for `term`; one character is the beginning of a pair."""
    if len(term) == 1:
        return [f'"{_code(term)}"*']
    return [f'"{_code(first)}{_code(second)}"' for first, second in pairwise(term)]


@lru_cache(maxsize=1 << 16)
def _code(character: str) -> str:
    """Return four letters or digits for a character: SQLite's tokenizer then has nothing to interpret."""
    number, digits = ord(character), ""
    for _ in range(4):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


# ---------------------------------------------------------------- texts


@lru_cache(maxsize=1 << 16)
def _folded(character: str) -> str:
    return " " if character.isspace() else unicodedata.normalize("NFKC", character).casefold()


def _fold(text: str) -> str:
    """Return the text as it is compared: runs of white space are one blank."""
    return _BLANKS.sub(" ", "".join(map(_folded, text)))


def _score(sides: Sequence[str], wanted: Sequence[str]) -> int:
    """How well a turn fits: a term counts up to three times, twice as much in the question."""
    question, answer = sides
    return sum(2 * min(question.count(term), 3) + min(answer.count(term), 3) for term in wanted)


def _found(
    session: str, saved: SavedTurn, elsewhere: bool, sides: Sequence[str], wanted: Sequence[str]
) -> FoundTurn:
    in_answer = wanted[0] not in sides[0]
    text = saved.turn.answer if in_answer else saved.turn.question
    return FoundTurn(session, saved, in_answer, _excerpt(text, wanted), elsewhere)


def _excerpt(text: str, terms: Sequence[str]) -> Excerpt:
    """Return the first place of each folded term that a text holds, as written, with what stands around it."""
    shown, matches, done = "", [], 0
    for begin, end in _places(text, terms):
        left, right = max(done, begin - _CONTEXT), min(len(text), end + _CONTEXT)
        shown += "…" * (left > done) + text[left:right]
        matches.append((len(shown) - (right - begin), len(shown) - (right - end)))
        done = right
    return Excerpt(shown + "…" * (done < len(text)), tuple(matches))


def _places(text: str, terms: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the terms first stand, first to last; those that overlap are one place."""
    folded: list[str] = []
    origins: list[int] = []
    for at, character in enumerate(text):
        for part in _folded(character):
            if part != " " or folded[-1:] != [" "]:
                folded.append(part)
                origins.append(at)
    whole, places = "".join(folded), list[tuple[int, int]]()
    found = ((at, at + len(term) - 1) for term in terms if (at := whole.find(term)) >= 0)
    for begin, end in sorted((origins[first], origins[last] + 1) for first, last in found):
        if places and begin < places[-1][1]:
            begin, end = places[-1][0], max(end, places.pop()[1])
        places.append((begin, end))
    return places
