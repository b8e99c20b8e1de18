"""Saved sessions: SQLite, one transaction per turn, on disk before the call returns.

Start at `SessionStore`. Independent of models and the terminal.
"""

from medchat.store.branches import Alternative, BranchPoint
from medchat.store.records import (
    AnswerCost,
    AnswerOrigin,
    BranchTurn,
    PlacedTurn,
    SavedTurn,
    SessionKind,
    SessionRecord,
    Transcript,
)
from medchat.store.search import Excerpt, FoundTurn
from medchat.store.session_rows import SessionFilter
from medchat.store.sessions import SessionStore

__all__ = [
    "Alternative",
    "AnswerCost",
    "AnswerOrigin",
    "BranchPoint",
    "BranchTurn",
    "Excerpt",
    "FoundTurn",
    "PlacedTurn",
    "SavedTurn",
    "SessionFilter",
    "SessionKind",
    "SessionRecord",
    "SessionStore",
    "Transcript",
]
