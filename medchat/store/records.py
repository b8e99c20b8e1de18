"""What the store hands out, and how texts and ids look inside it."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from medchat.api import Finish, Turn

#: Letters and digits that are hard to mistake for one another, read aloud or on a screen.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_ID = re.compile(r"\d{8}-[0-9a-z]{4}")


#: A turn and its position in the session, from 1.
PlacedTurn = tuple[int, Turn]


class AnswerCost(Protocol):
    """What one answer cost: tokens, and seconds of wall time (the engine's `TurnStats`, or a `SavedTurn`)."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def reused_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def first_token_seconds(self) -> float: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One saved session. `turns` counts those not undone; `first_question` is "" before the first."""

    id: str
    name: str | None
    created: datetime
    updated: datetime
    backbone: str
    model: str
    adapters: tuple[str, ...]
    template: str
    system: str
    turns: int = 0
    first_question: str = ""


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """One saved turn. `position` counts from 1; `created` is when it was saved, in UTC."""

    position: int
    turn: Turn
    created: datetime
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0


def new_id() -> str:
    """Return a fresh session id: the local date and four random characters, `20261120-k3f9`."""
    return time.strftime("%Y%m%d-") + "".join(secrets.choice(_ALPHABET) for _ in range(4))


def looks_like_an_id(text: str) -> bool:
    """Whether `text` has the form that `new_id` gives."""
    return _ID.fullmatch(text) is not None


def stored(text: str) -> str | bytes:
    """Return what SQLite keeps for `text`, so that `restored` gives back the very same string.

    Ordinary text is TEXT. Text that SQLite's own functions would cut (NUL) or that has no UTF-8
    form (lone surrogates, which a broken paste can hold) is a BLOB of UTF-8 with surrogates passed.
    """
    if "\0" not in text:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            pass
        else:
            return text
    return text.encode("utf-8", "surrogatepass")


def restored(value: str | bytes) -> str:
    """Return the string that `stored` was given."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def instant(seconds: float) -> datetime:
    """Return a Unix time as an aware UTC datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def turn_from(row: sqlite3.Row) -> SavedTurn:
    """Return the saved turn in a row of table `turn`."""
    return SavedTurn(
        position=row["position"],
        turn=Turn(restored(row["question"]), restored(row["answer"]), Finish(row["finish"])),
        created=instant(row["created"]),
        prompt_tokens=row["prompt_tokens"],
        reused_tokens=row["reused_tokens"],
        completion_tokens=row["completion_tokens"],
        first_token_seconds=row["first_token_seconds"],
        seconds=row["seconds"],
    )


def record_from(row: sqlite3.Row) -> SessionRecord:
    """Return the session in a row of table `session` with its `turns` and `first_question`."""
    return SessionRecord(
        id=row["id"],
        name=row["name"],
        created=instant(row["created"]),
        updated=instant(row["updated"]),
        backbone=restored(row["backbone"]),
        model=restored(row["model"]),
        adapters=tuple(json.loads(row["adapters"])),
        template=restored(row["template"]),
        system=restored(row["system"]),
        turns=row["turns"],
        first_question=restored(row["first_question"] or ""),
    )
