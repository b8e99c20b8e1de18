"""Full-text search: the turns that contain every term, the best first, with an excerpt of each.

The index (see `search_index`) gives candidates, and each is checked against the text itself. Without FTS5 in
SQLite every turn is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from medchat.store import search_index
from medchat.store.records import SavedTurn, restored, turn_from
from medchat.store.search_index import folded, folded_character

#: The number of matching turns, newest first, among which the best are chosen.
_RANKED = 400
#: The number of turns read from the disk together.
_AT_ONCE = 100
#: The number of characters shown on either side of a match.
_CONTEXT = 24


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The first match of some terms in a question or an answer, with its context; "…": text was cut.

    `matches` are (begin, end) in `text`, in its order.
    """

    in_answer: bool
    text: str
    matches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """A turn that contains every term, in its question or its answer, with an excerpt of one or of each.

    The answer's shows the terms that are not in the question. `elsewhere`: the turn was undone or is on
    another branch, not in the current conversation.
    """

    session_id: str
    saved: SavedTurn
    excerpts: tuple[Excerpt, ...]
    elsewhere: bool = False


def find_turns(connection: sqlite3.Connection, terms: Sequence[str], limit: int) -> tuple[FoundTurn, ...]:
    """Return up to `limit` turns that contain every term, the best first (0: all).

    Case and width are ignored. A term may span words, but not a question and its answer. Only indexed turns
    (`search_index.update`) are found; without an index all are.
    """
    wanted = [text for term in terms if (text := folded(term).strip())]
    if not wanted:
        return ()
    hits = []
    for row in _candidates(connection, wanted):
        sides = (folded(restored(row["question"])), folded(restored(row["answer"])))
        if all(any(term in side for side in sides) for term in wanted):
            hits.append((_score(sides, wanted), row, sides[0]))
            if limit and len(hits) >= _RANKED:
                break
    hits.sort(key=lambda hit: hit[0], reverse=True)  # stable: the newer of two equal ones stays first
    return tuple(_found(row, question, wanted) for _, row, question in hits[: limit or None])


def _candidates(connection: sqlite3.Connection, wanted: Sequence[str]) -> Iterator[sqlite3.Row]:
    """Yield the turns, newest first, that may contain every term."""
    newest = "SELECT turn.*, depth FROM turn LEFT JOIN branch_turn ON turn_id = id {} ORDER BY id DESC"
    if not search_index.exists(connection):
        yield from connection.execute(newest.format(""))
        return
    ids = search_index.turns_holding(connection, wanted)
    while group := tuple(islice(ids, _AT_ONCE)):
        marks = ",".join("?" * len(group))
        yield from connection.execute(newest.format(f"WHERE id IN ({marks})"), group)


# ---------------------------------------------------------------- texts


def _score(sides: Sequence[str], wanted: Sequence[str]) -> int:
    """The score of a turn: a term counts up to three times, twice as much in the question."""
    question, answer = sides
    return sum(2 * min(question.count(term), 3) + min(answer.count(term), 3) for term in wanted)


def _found(row: sqlite3.Row, question: str, wanted: Sequence[str]) -> FoundTurn:
    saved = turn_from(row, row["depth"] if isinstance(row["depth"], int) else None)
    shown = (
        (False, saved.turn.question, [term for term in wanted if term in question]),
        (True, saved.turn.answer, [term for term in wanted if term not in question]),
    )
    excerpts = tuple(_excerpt(*side) for side in shown if side[2])
    return FoundTurn(row["session_id"], saved, excerpts, row["undone"] != 0)


def _excerpt(in_answer: bool, text: str, terms: Sequence[str]) -> Excerpt:
    """Return an excerpt with the first match of each folded term in a text, and its context."""
    shown, matches, done = "", [], 0
    for begin, end in _places(text, terms):
        left, right = max(done, begin - _CONTEXT), min(len(text), end + _CONTEXT)
        shown += "…" * (left > done) + text[left:right]
        matches.append((len(shown) - (right - begin), len(shown) - (right - end)))
        done = right
    return Excerpt(in_answer, shown + "…" * (done < len(text)), tuple(matches))


def _places(text: str, terms: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first matches of the terms in order; overlapping ones are merged."""
    parts: list[str] = []
    origins: list[int] = []
    for at, character in enumerate(text):
        for part in folded_character(character):
            if part != " " or parts[-1:] != [" "]:
                parts.append(part)
                origins.append(at)
    whole, places = "".join(parts), list[tuple[int, int]]()
    found = ((at, at + len(term) - 1) for term in terms if (at := whole.find(term)) >= 0)
    for begin, end in sorted((origins[first], origins[last] + 1) for first, last in found):
        if places and begin < places[-1][1]:
            begin, end = places[-1][0], max(end, places.pop()[1])
        places.append((begin, end))
    return places
