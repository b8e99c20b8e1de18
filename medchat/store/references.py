"""How users refer to sessions: valid names, and the errors for a reference that matches none or several."""

from __future__ import annotations

import difflib
import sqlite3
import unicodedata
from collections.abc import Sequence

from medchat.errors import UsageError
from medchat.language import say
from medchat.store.records import SessionRecord, looks_like_an_id, stored

NAME_LIMIT = 100


def checked_name(name: str) -> str:
    """Return `name` as it is stored (trimmed, NFC). Raises UsageError for an invalid name."""
    name = unicodedata.normalize("NFC", name.strip())
    if not name or len(name) > NAME_LIMIT or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise UsageError(
            say("这不能用作会话名", "this cannot be a session's name"),
            say(
                f"会话名是 1 到 {NAME_LIMIT} 个可见字符，写在一行内",
                f"a name is 1 to {NAME_LIMIT} visible characters on one line",
            ),
        )
    if looks_like_an_id(name):
        raise UsageError(
            say(f"“{name}”看起来像会话编号，不能用作会话名", f"{name!r} looks like a session id"),
            say("请换一个名字", "choose another name"),
        )
    return name


def refuse_taken(connection: sqlite3.Connection, name: str | None, besides: str = "") -> None:
    """Raise UsageError if a session other than `besides` has this name."""
    taken = "SELECT 1 FROM session WHERE name = ? AND id <> ?"
    if name is not None and connection.execute(taken, (name, besides)).fetchone():
        raise UsageError(
            say(f"已有名为“{name}”的会话", f"there is a session named {name!r} already"),
            say(f"打开它：medchat chat --session {name}", f"open it: medchat chat --session {name}"),
        )


def matching(reference: str) -> tuple[tuple[str, list[object]], ...]:
    """Return the conditions to try in turn for a reference: id, name, prefix of an id."""
    reference = unicodedata.normalize("NFC", reference.strip())
    text = stored(reference)
    exact: tuple[tuple[str, list[object]], ...] = (("WHERE id = ?", [text]), ("WHERE name = ?", [text]))
    if not reference:
        return exact
    length = len(reference)
    # An id is eight digits, a hyphen and four characters: the last part alone is a valid reference.
    return (
        *exact,
        ("WHERE substr(id, 1, ?) = ? OR substr(id, 10, ?) = ?", [length, text, length, text]),
    )


def not_one(reference: str, found: Sequence[SessionRecord], known: Sequence[SessionRecord]) -> UsageError:
    """Return the error for a reference that matches no session, or several."""
    if found:
        ids = "  ".join(record.id for record in found[:5])
        return UsageError(
            say(
                f"“{reference}”对应 {len(found)} 个会话：{ids}",
                f"{reference!r} fits {len(found)} sessions: {ids}",
            ),
            say("请多写几个字符", "type more of the id"),
        )
    words = [word for record in known for word in (record.name, record.id) if word]
    near = difflib.get_close_matches(reference, words, n=3)
    hint = say("是不是要找：", "did you mean: ") + "  ".join(near) + say("？", "? ") if near else ""
    return UsageError(
        say(f"没有会话“{reference}”", f"there is no session {reference!r}"),
        hint + say("列出会话：medchat sessions list", "list them: medchat sessions list"),
    )


def gone(session_id: str) -> UsageError:
    """Return the error for a session that does not exist, such as one deleted meanwhile."""
    return UsageError(
        say(f"会话 {session_id} 不存在或已被删除", f"session {session_id} does not exist or was deleted"),
        say("列出会话：medchat sessions list", "list them: medchat sessions list"),
    )
