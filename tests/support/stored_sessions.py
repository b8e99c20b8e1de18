"""Sessions with words in them, and every byte of the files they are stored in."""

from __future__ import annotations

from pathlib import Path

from medchat.api import Turn
from medchat.store import SessionStore

SECRET = "只有我自己知道的秘密"


def begin(store: SessionStore, name: str | None = None) -> str:
    return store.create("echo", "none", name=name).id


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
    store.replace_last(session, Turn("改写", "改写"))
    return session
