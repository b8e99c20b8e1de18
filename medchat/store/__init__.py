"""Saved sessions: SQLite, one transaction a turn, on disk before the call returns.

Start at `SessionStore`. Knows conversations and files; knows nothing of models or the terminal.
"""

from medchat.store.records import AnswerCost, AnswerOrigin, PlacedTurn, SavedTurn, SessionKind, SessionRecord
from medchat.store.search import FoundTurn
from medchat.store.session_rows import SessionFilter
from medchat.store.sessions import SessionStore

__all__ = [
    "AnswerCost",
    "AnswerOrigin",
    "FoundTurn",
    "PlacedTurn",
    "SavedTurn",
    "SessionFilter",
    "SessionKind",
    "SessionRecord",
    "SessionStore",
]
