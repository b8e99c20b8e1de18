"""Saved sessions: SQLite, one transaction a turn, on disk before the call returns.

Start at `SessionStore`. Knows conversations and files; knows nothing of models or the terminal.
"""

from medchat.store.records import AnswerCost, PlacedTurn, SavedTurn, SessionRecord
from medchat.store.sessions import SessionStore

__all__ = ["AnswerCost", "PlacedTurn", "SavedTurn", "SessionRecord", "SessionStore"]
