"""Sessions with words in them, and every byte of the files they are stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medchat.api import Turn
from medchat.store import PlacedTurn, SessionStore

SECRET = "只有我自己知道的秘密"


def begin(store: SessionStore, name: str | None = None) -> str:
    return store.create("echo", "none", name=name).id


def last_turns(store: SessionStore, session: str, count: int = 1) -> list[PlacedTurn]:
    """Return the last turns of a session, as a chat that continues with it knows them."""
    return [(saved.position, saved.turn) for saved in store.turns(session)][-count:]


def said(store: SessionStore, session: str) -> list[str]:
    """The questions of the current conversation."""
    return [saved.turn.question for saved in store.turns(session)]


def ways(store: SessionStore, session: str) -> dict[int, tuple[list[str], int | None]]:
    """The questions at each place with branches, and which of them is current."""
    return {
        point.position: ([saved.turn.question for saved in store.turns_at(point)], point.current)
        for point in store.branches(session)
    }


def bytes_in(folder: Path) -> bytes:
    """Return what is in all files of the folder, joined."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def fill(store: SessionStore, words: str, turns: int = 40) -> str:
    """Save a session whose turns, name and prompt hold `words` again and again, at every size."""
    session = store.create("echo", "none", system=words, name=words).id
    for number in range(turns):
        store.append_turn(session, Turn(f"{words}{number}", words * (1 + number * number)))
        store.remember_input(f"{words}{number}")
    store.undo(session, 3)
    store.append_turn(session, Turn("改写", "改写"), instead_of=last_turns(store, session, 2))
    return session


def content(store: SessionStore) -> list[Any]:
    """Return everything stored of each session except its id and its times, sorted."""
    sessions = [store.transcript(record.id) for record in store.list()]
    return sorted(
        [
            session.record.name or "",
            [(saved.position, saved.turn.question, saved.turn.answer) for saved in session.turns],
            [(other.saved.turn.question, other.saved.position, other.after) for other in session.others],
        ]
        for session in sessions
    )
