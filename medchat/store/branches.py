"""The branches of a session, inside the caller's transaction: moving turns to a branch, switching to it.

A conversation has a line of turns: the current ones (`undone` 0) and, after them, those that `/redo` restores
(`undone` 1), numbered by `position`. A turn that was replaced is on a branch (`undone` 2): `branch_turn` has
the turn that it follows. Its position is negative and not an integer, so that a program of the previous
format, which numbers after the highest position and deletes undone turns, neither counts nor deletes it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medchat.store.records import BranchTurn, SavedTurn, turn_from
from medchat.store.turn_rows import insert

SAID, UNDONE, ON_A_BRANCH = 0, 1, 2
#: The parent of a session's first turn.
_BEGINNING = 0

_TURN = "SELECT turn.*, origin FROM turn LEFT JOIN turn_origin ON turn_id = turn.id WHERE turn.id = ?"


def branch_off(connection: sqlite3.Connection, session_id: str, first: int | None = None) -> None:
    """Move the turns from position `first` on (None: no current ones), and undone ones, to a new branch."""
    rows = connection.execute(
        "SELECT id, position FROM turn WHERE session_id = ? AND (undone = ? OR undone = ? AND position >= ?)"
        " ORDER BY position",
        (session_id, UNDONE, SAID, first),
    ).fetchall()
    if not rows:
        return
    before = connection.execute(
        "SELECT id FROM turn WHERE session_id = ? AND undone < ? AND position < ? ORDER BY position DESC LIMIT 1",
        (session_id, ON_A_BRANCH, rows[0]["position"]),
    ).fetchone()
    parent, order = int(before["id"]) if before else _BEGINNING, _next_order(connection, session_id)
    for row in rows:
        _put_on_a_branch(connection, row["id"], parent, row["position"], order)
        parent = row["id"]


def insert_branches(
    connection: sqlite3.Connection, session_id: str, line: Sequence[int], others: Sequence[BranchTurn]
) -> None:
    """Write the turns on branches of a session whose line has the turns of ids `line`."""
    ids, depths = [_BEGINNING, *line], [*range(len(line) + 1)]
    for order, other in enumerate(others, 1):
        saved = other.saved
        created = saved.created.timestamp()
        _, turn_id = insert(connection, session_id, saved.turn, saved, saved.origin, created=created)
        _put_on_a_branch(connection, turn_id, ids[other.after], depths[other.after] + 1, order)
        ids.append(turn_id)
        depths.append(depths[other.after] + 1)


def _put_on_a_branch(
    connection: sqlite3.Connection, turn_id: int, parent: int, depth: int, order: int
) -> None:
    connection.execute("INSERT INTO branch_turn VALUES (?, ?, ?, ?)", (turn_id, parent, depth, order))
    connection.execute(
        "UPDATE turn SET undone = ?, position = ? WHERE id = ?", (ON_A_BRANCH, -(turn_id + 0.5), turn_id)
    )


def _next_order(connection: sqlite3.Connection, session_id: str) -> int:
    highest: object = connection.execute(
        "SELECT max(set_aside) FROM branch_turn JOIN turn ON id = turn_id WHERE session_id = ?", (session_id,)
    ).fetchone()[0]
    return 1 if highest is None else _whole(highest) + 1


def _whole(value: object) -> int:
    """Return a stored number, 1 for any other value in a damaged file."""
    return int(value) if isinstance(value, int) and 0 < value < 1 << 50 else 1


def _moment(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


@dataclass(frozen=True, slots=True)
class Alternative:
    """The id of an alternative turn, and the number of turns after it on its branch."""

    turn_id: int
    following: int


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """A place in a conversation, from 1, with its alternative turns, oldest first.

    `current` is the index of the one in the conversation, None if that ends before it.
    """

    position: int
    alternatives: tuple[Alternative, ...]
    current: int | None


def turns_at(connection: sqlite3.Connection, point: BranchPoint) -> tuple[SavedTurn, ...]:
    """Return the turns at a place; one that was deleted meanwhile is left out."""
    rows = (connection.execute(_TURN, (way.turn_id,)).fetchone() for way in point.alternatives)
    return tuple(turn_from(row, point.position) for row in rows if row is not None)


class Tree:
    """All turns of a session, by id: the line and what branches off it."""

    def __init__(self, connection: sqlite3.Connection, session_id: str) -> None:
        self._connection = connection
        self._session = session_id
        rows = connection.execute(
            "SELECT id, position, undone, created FROM turn WHERE session_id = ? AND undone < ? ORDER BY position",
            (session_id, ON_A_BRANCH),
        ).fetchall()
        self._line: list[int] = [row["id"] for row in rows]
        self._on_line = frozenset(self._line)
        self._positions = [_whole(row["position"]) for row in rows]
        self._said: int = sum(row["undone"] == SAID for row in rows)
        self._made: dict[int, float] = {row["id"]: _moment(row["created"]) for row in rows}
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        self._attach()

    def points(self) -> tuple[BranchPoint, ...]:
        """Return the places of the line, its end included, that have alternatives."""
        found = []
        for place in range(1, self._said + 2):
            current = self._line[place - 1] if place <= self._said else None
            ids = self._ways(place)
            if [one for one in ids if one != current]:
                ways = tuple(Alternative(one, self._following(one, place)) for one in ids)
                found.append(BranchPoint(place, ways, None if current is None else ids.index(current)))
        return tuple(found)

    def next_way(self) -> tuple[int, int] | None:
        """Return place and index of the alternative after the current one at the last point, None without points."""
        for place in range(self._said + 1, 0, -1):
            ids = self._ways(place)
            if place > self._said and ids:  # the undone turns, else the most recent branch
                latest = self._line[place - 1 : place] or self._children[self._before(place)][-1:]
                return place, ids.index(latest[0])
            if len(ids) > 1:
                return place, (ids.index(self._line[place - 1]) + 1) % len(ids)
        return None

    def others(self) -> tuple[BranchTurn, ...]:
        """Return every turn that is not in the current conversation, each after the one it follows."""
        numbers = {one: number for number, one in enumerate((_BEGINNING, *self._line[: self._said]))}
        found: list[BranchTurn] = []
        for depth, level in enumerate(self._levels(), 1):
            for one, parent in level:
                if one not in numbers:
                    numbers[one] = len(numbers)
                    found.append(BranchTurn(self._saved(one, depth), numbers[parent]))
        return tuple(found)

    def take(self, place: int, way: int) -> bool:
        """Switch the conversation to the alternative of that index at `place`, with the turns after it.

        False, without a change, if there is no such alternative.
        """
        if not 1 <= place <= self._said + 1:
            return False
        ids = self._ways(place)
        if not 0 <= way < len(ids):
            return False
        if place <= self._said and ids[way] == self._line[place - 1]:
            return True
        fallback = self._positions[-1] + 1 if self._positions else 1
        first = self._positions[place - 1] if place <= len(self._line) else fallback
        chain = [ids[way], *self._way_on(ids[way])]
        branch_off(self._connection, self._session, first)
        for position, one in enumerate(chain, first):
            self._connection.execute("DELETE FROM branch_turn WHERE turn_id = ?", (one,))
            self._connection.execute(
                "UPDATE turn SET undone = ?, position = ? WHERE id = ?", (SAID, position, one)
            )
        return True

    def _attach(self) -> None:
        """Find the successors of each turn. One whose parent is gone follows the line's turn at that place."""
        rows = self._connection.execute(
            "SELECT turn_id, parent, depth, created FROM branch_turn JOIN turn ON id = turn_id"
            " WHERE session_id = ? AND undone = ? ORDER BY set_aside, turn_id",
            (self._session, ON_A_BRANCH),
        ).fetchall()
        self._made |= {row["turn_id"]: _moment(row["created"]) for row in rows}
        of_parent = defaultdict(list)
        for row in rows:
            of_parent[row["parent"]].append(row["turn_id"])
        reached = {_BEGINNING, *self._line}

        def reach(parents: list[int]) -> None:
            while parents:
                parent = parents.pop()
                new = [one for one in of_parent[parent] if one not in reached]
                reached.update(new)
                self._children[parent] += new
                parents += new

        reach(list(reached))
        for row in sorted(rows, key=lambda row: (_whole(row["depth"]), row["turn_id"])):
            if row["turn_id"] not in reached:
                place = min(_whole(row["depth"]) - 1, self._said)
                self._children[self._before(place + 1)].append(row["turn_id"])
                reached.add(row["turn_id"])
                reach([row["turn_id"]])

    def _before(self, place: int) -> int:
        return self._line[place - 2] if place > 1 else _BEGINNING

    def _ways(self, place: int) -> list[int]:
        """Return the ids of all turns at `place`, in the order of creation."""
        ids = [*self._line[place - 1 : place], *self._children[self._before(place)]]
        return sorted(ids, key=lambda one: (self._made[one], one))

    def _way_on(self, turn_id: int) -> Iterator[int]:
        """Yield the turns that followed when this branch was last current."""
        if turn_id in self._on_line:  # the first one undone
            yield from self._line[self._said + 1 :]
            return
        while children := self._children[turn_id]:
            turn_id = children[-1]  # the most recently replaced one
            yield turn_id

    def _following(self, turn_id: int, place: int) -> int:
        if place <= self._said and turn_id == self._line[place - 1]:
            return self._said - place
        return sum(1 for _ in self._way_on(turn_id))

    def _levels(self) -> Iterator[list[tuple[int, int]]]:
        """Yield (turn, parent) of all first turns, all second ones and so on; those of the line come last."""
        parents, place = [_BEGINNING], 0
        while parents:
            place += 1
            level = [(one, parent) for parent in parents for one in self._children[parent]]
            level += [(one, self._before(place)) for one in self._line[place - 1 : place]]
            if level:
                yield level
            parents = [one for one, _ in level]

    def _saved(self, turn_id: int, place: int) -> SavedTurn:
        row = self._connection.execute(_TURN, (turn_id,)).fetchone()
        return turn_from(row, place)
