"""The store's records, and how texts and ids are stored."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from medchat.api import Finish, Turn

#: Letters and digits that are hard to confuse, read aloud or on a screen.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
#: The year 9000, Unix time: later ones overflow where they are shown in local time.
_LATEST = 221_845_392_000.0
_ID = re.compile(r"\d{8}-[0-9a-z]{4}")


#: A turn and its position in the session, from 1.
PlacedTurn = tuple[int, Turn]


class AnswerCost(Protocol):
    """The cost of one answer: tokens, and seconds of wall time (the engine's `TurnStats`, or a `SavedTurn`)."""

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
class AnswerOrigin:
    """The origin of an answer. Older programs did not record it, so each field may be empty.

    `settings` are the decoding settings by name, `notices` the texts shown before the answer, `medchat` the
    version and `language` the interface's language at the time. `edited`: the user rewrote the answer.
    """

    backbone: str = ""
    model: str = ""
    adapters: tuple[str, ...] = ()
    template: str = ""
    system: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    medchat: str = ""
    language: str = ""
    edited: bool = False

    def to_json(self) -> str:
        """Return the stored JSON."""
        return json.dumps(asdict(self), ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> AnswerOrigin:
        """Return what `to_json` wrote. Fields that are missing, unknown or of another type are left out."""
        try:
            values = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(values, dict):
            return cls()
        texts: dict[str, Any] = {
            name: values[name]
            for name in ("backbone", "model", "template", "system", "medchat", "language")
            if isinstance(values.get(name), str)
        }
        lists: dict[str, Any] = {
            name: tuple(part for part in values[name] if isinstance(part, str))
            for name in ("adapters", "notices")
            if isinstance(values.get(name), list)
        }
        settings = values.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        return cls(**texts, **lists, settings=settings, edited=values.get("edited") is True)


class SessionKind(StrEnum):
    """The origin of a session: a chat, one `ask`, or an import."""

    CHAT = "chat"
    ASK = "ask"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One saved session. `turns` counts those not undone; `first_question` is "" before the first.

    `damaged`: part of it could not be read, and is empty here.
    """

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
    damaged: bool = False
    kind: SessionKind = SessionKind.CHAT

    @property
    def title(self) -> str:
        """The name, else the beginning of the first question; may contain anything a user can type."""
        return self.name or " ".join(self.first_question.split())


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """One saved turn. `position` counts from 1; `created` is when it was saved, in UTC.

    `damaged`: part of it could not be read, and is empty here.
    """

    position: int
    turn: Turn
    created: datetime
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    damaged: bool = False
    origin: AnswerOrigin = field(default_factory=AnswerOrigin)


@dataclass(frozen=True, slots=True)
class BranchTurn:
    """A turn that is not in the current conversation, its `position` counted along its own branch.

    `after` is the number of the turn that it follows, counted from 1 through the conversation and then
    through the branch turns; 0 for the beginning.
    """

    saved: SavedTurn
    after: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """A complete session: its turns, oldest first, and those on other branches, each after the one it follows."""

    record: SessionRecord
    turns: tuple[SavedTurn, ...]
    others: tuple[BranchTurn, ...] = ()


def new_id() -> str:
    """Return a new session id: the local date and four random characters, `20261120-k3f9`."""
    return time.strftime("%Y%m%d-") + "".join(secrets.choice(_ALPHABET) for _ in range(4))


def looks_like_an_id(text: str) -> bool:
    """Whether `text` has the format of `new_id`."""
    return _ID.fullmatch(text) is not None


def stored(text: str) -> str | bytes:
    """Return the value that SQLite stores for `text`, from which `restored` returns the same string.

    Ordinary text is TEXT. Text that SQLite's own functions would truncate (NUL) or that is not valid UTF-8
    (lone surrogates, from a broken paste) is a BLOB encoded with `surrogatepass`.
    """
    if "\0" not in text:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            pass
        else:
            return text
    return text.encode("utf-8", "surrogatepass")


def restored(value: object) -> str:
    """Return the string that `stored` was given; of any other value, its readable part."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else "" if value is None else str(value)


class _Row:
    """A row with the declared types, whatever it contains: one bad value must not hide all sessions.

    SQLite allows any type in any column. Unreadable values become empty or 0, and set `damaged`.
    """

    def __init__(self, row: sqlite3.Row) -> None:
        self._row = row
        self.damaged = False

    def text(self, name: str) -> str:
        value = self._row[name]
        self.damaged |= not isinstance(value, (str, bytes))
        return restored(value)

    def number(self, name: str, kind: type[int] | type[float], highest: float = 1e15) -> Any:
        value = self._row[name]
        if type(value) in (int, float) and 0 <= value <= highest:  # so that NaN is excluded
            return kind(value)
        self.damaged = True
        return kind(0)

    def instant(self, name: str) -> datetime:
        """Return a Unix time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.number(name, float, _LATEST), UTC)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a JSON list of strings."""
        try:
            value = json.loads(self.text(name))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self.damaged = True
        return ()

    def finish(self, name: str) -> Finish:
        try:
            return Finish(self.text(name))
        except ValueError:
            self.damaged = True
            return Finish.ERROR


def turn_from(row: sqlite3.Row, position: int | None = None) -> SavedTurn:
    """Return the saved turn in a row of table `turn`; `position` for one on a branch, whose row has none."""
    read = _Row(row)
    saved = SavedTurn(
        position=read.number("position", int) if position is None else position,
        turn=Turn(read.text("question"), read.text("answer"), read.finish("finish")),
        created=read.instant("created"),
        prompt_tokens=read.number("prompt_tokens", int),
        reused_tokens=read.number("reused_tokens", int),
        completion_tokens=read.number("completion_tokens", int),
        first_token_seconds=read.number("first_token_seconds", float),
        seconds=read.number("seconds", float),
        origin=AnswerOrigin.from_json(row["origin"]) if "origin" in row.keys() else AnswerOrigin(),  # noqa: SIM118
    )
    return replace(saved, damaged=read.damaged)


def record_from(row: sqlite3.Row) -> SessionRecord:
    """Return the session in a row of table `session` with its `turns` and `first_question`."""
    read = _Row(row)
    record = SessionRecord(
        id=read.text("id"),
        name=None if row["name"] is None else read.text("name"),
        created=read.instant("created"),
        updated=read.instant("updated"),
        backbone=read.text("backbone"),
        model=read.text("model"),
        adapters=read.texts("adapters"),
        template=read.text("template"),
        system=read.text("system"),
        turns=row["turns"],
        first_question=restored(row["first_question"]),
        kind=_kind(row["kind"]),
    )
    return replace(record, damaged=read.damaged)


def _kind(value: object) -> SessionKind:
    try:
        return SessionKind(str(value or SessionKind.CHAT))
    except ValueError:
        return SessionKind.CHAT
