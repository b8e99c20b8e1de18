"""Reading sessions from a file: what `export` wrote as JSON, and conversations of other programs.

The file is untrusted: sizes are bounded, times and ids checked, and of notices only texts of our own are kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medchat import medical_safety
from medchat.api import Finish, Turn
from medchat.chat.demo_mode import says_it_means_nothing
from medchat.datafiles.fields import RecordError
from medchat.datafiles.record import parse_record
from medchat.errors import DataError, UsageError
from medchat.language import say
from medchat.regular_files import read_regular
from medchat.sanitize import sanitize_line
from medchat.store import AnswerOrigin, BranchTurn, SavedTurn, SessionKind, SessionRecord, Transcript
from medchat.store.references import checked_name
from medchat.transcripts.export import SCHEMA

#: Where other programs keep a conversation.
_CONVERSATIONS = ("messages", "conversations")
#: The largest file, the most sessions in it and turns in one of them, and the longest text (characters).
MOST_BYTES, MOST_SESSIONS, MOST_TURNS, MOST_CHARACTERS = 256 * 2**20, 100_000, 10_000, 2**20


def read_transcripts(path: Path) -> tuple[Transcript, ...]:
    """Return the sessions of a file: one JSON object, an array of them, or one a line.

    Raises DataError naming the session that is not understood, and MedchatError if the file cannot be read.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, say("不是 UTF-8 文本", "it is not UTF-8 text")) from error
    values = _values(path, text)
    if len(values) > MOST_SESSIONS:
        raise _bad(path, 0, say(f"会话多于 {MOST_SESSIONS} 个", f"more than {MOST_SESSIONS} sessions"))
    found = []
    for number, value in enumerate(values, 1):
        try:
            found.append(_transcript(value))
        except (RecordError, ValueError) as error:
            raise _bad(path, number, str(error)) from error
    if not found:
        raise _bad(path, 0, say("文件里没有会话", "there is no session in the file"))
    return tuple(found)


def _values(path: Path, text: str) -> list[Any]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return whole if isinstance(whole, list) else [whole]
    values = []
    # Not `splitlines`: JSON may hold other separators of lines as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise _bad(path, number, say("不是有效的 JSON", "not valid JSON")) from error
    return values


def _transcript(value: Any) -> Transcript:
    if isinstance(value, dict) and value.get("schema") == SCHEMA:
        return _ours(value)
    if isinstance(value, dict) and not value.keys().isdisjoint(_CONVERSATIONS):
        return _of_messages(value)
    raise RecordError(
        say(
            "应是 medchat sessions export 写出的会话，或含 messages、conversations 的对象",
            "expected a session of medchat sessions export, or an object with messages or conversations",
        )
    )


# ---------------------------------------------------------------- our own form


def _ours(value: Mapping[str, Any]) -> Transcript:
    log = value.get("log")
    branches = value.get("branches", [])
    if not (
        isinstance(log, list) and isinstance(branches, list) and 1 <= len(log) + len(branches) <= MOST_TURNS
    ):
        raise ValueError(
            say(
                f"log 和 branches 应是列表，合计 1 到 {MOST_TURNS} 轮",
                f"log and branches must be lists, together of 1 to {MOST_TURNS} turns",
            )
        )
    adapters = value.get("adapters", [])
    if not isinstance(adapters, list):
        raise ValueError(say("adapters 应是列表", "adapters must be a list"))
    record = SessionRecord(
        id=_text(value, "id"),
        name=_name(value.get("name")),
        created=_moment(value.get("created")),
        updated=_moment(value.get("updated")),
        backbone=_text(value, "backbone"),
        model=_text(value, "model"),
        adapters=tuple(part for part in adapters if isinstance(part, str)),
        template=_text(value, "template"),
        system=_text(value, "system"),
        kind=SessionKind.IMPORTED,
    )
    turns = tuple(_turn(position, turn) for position, turn in enumerate(log, 1))
    return Transcript(record, turns, tuple(_others(len(turns), branches)))


def _others(turns: int, branches: list[Any]) -> Iterator[BranchTurn]:
    """Give the turns of other branches, each behind one of the `turns` of the conversation or of those before it."""
    depths = [*range(turns + 1)]
    for number, value in enumerate(branches, turns + 1):
        after = value.get("after") if isinstance(value, dict) else None
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < number:
            raise ValueError(
                say(
                    f"第 {number} 轮的 after 无效",
                    f"turn {number}: after must be the number of a turn before it",
                )
            )
        depths.append(depths[after] + 1)
        yield BranchTurn(replace(_turn(number, value), position=depths[-1]), after)


def _name(value: Any) -> str | None:
    """Return a name that can be one, else None: the first question then is the title."""
    try:
        return checked_name(value) if isinstance(value, str) else None
    except UsageError:
        return None


def _turn(position: int, value: Any) -> SavedTurn:
    if not isinstance(value, dict):
        raise ValueError(say(f"第 {position} 轮不是对象", f"turn {position} is no object"))
    try:
        finish = Finish(value.get("finish", "stop"))
    except ValueError:
        raise ValueError(say(f"第 {position} 轮的 finish 无效", f"turn {position}: unknown finish")) from None
    return SavedTurn(
        position=position,
        turn=Turn(_text(value, "question"), _text(value, "answer"), finish),
        created=_moment(value.get("created")),
        prompt_tokens=_count(value.get("prompt_tokens")),
        reused_tokens=_count(value.get("reused_tokens")),
        completion_tokens=_count(value.get("completion_tokens")),
        first_token_seconds=_seconds(value.get("first_token_seconds", 0)),
        seconds=_seconds(value.get("seconds", 0)),
        origin=_origin(value.get("origin")),
    )


def _origin(value: Any) -> AnswerOrigin:
    """Return what made an answer. A notice that is not word for word one of ours could be forged, and is dropped."""
    origin = AnswerOrigin.from_json(json.dumps(value if isinstance(value, dict) else {}))
    ours = medical_safety.notice_texts()
    notices = tuple(text for text in origin.notices if text in ours or says_it_means_nothing(text))
    return replace(origin, notices=notices)


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key, "")
    if not isinstance(text, str):
        raise ValueError(say(f"{key} 应是文本", f"{key} must be a text"))
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            say(f"{key} 超过 {MOST_CHARACTERS} 个字符", f"{key} is longer than {MOST_CHARACTERS} characters")
        )
    return text


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0


def _seconds(value: Any) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if fits and math.isfinite(value) else 0.0


def _moment(value: Any) -> datetime:
    """Return a time of the past as the file states it, else now."""
    now = datetime.fromtimestamp(time.time(), UTC)
    try:
        stated = datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return now
    return stated if datetime(1990, 1, 1, tzinfo=UTC) < stated < now else now


# ---------------------------------------------------------------- other programs' conversations


def _of_messages(value: Mapping[str, Any]) -> Transcript:
    record = parse_record(dict(value))
    answer = record.reference if isinstance(record.reference, str) else ""
    turns = [*record.turns]
    if answer:
        turns.append(Turn(record.last, answer))
    for number in record.unlearned:
        if turns[number].question:  # what the answerer began with is context in any case
            turns[number] = replace(turns[number], finish=Finish.CANCELLED)
    if not turns:
        raise RecordError(say("对话里没有回答", "the conversation holds no answer"))
    if len(turns) > MOST_TURNS or any(len(turn.question + turn.answer) > MOST_CHARACTERS for turn in turns):
        raise ValueError(say("对话太长", "the conversation is too long"))
    now = datetime.fromtimestamp(time.time(), UTC)
    identity = _labelled_id(value)
    session = SessionRecord(
        identity, None, now, now, "", "", (), "", record.system, kind=SessionKind.IMPORTED
    )
    return Transcript(session, tuple(SavedTurn(at, turn, now) for at, turn in enumerate(turns, 1)))


def _labelled_id(value: Mapping[str, Any]) -> str:
    """Return what the implicit label of MedChat's own export calls the session, "" if there is none."""
    label = value.get("AIGC")
    identity = label.get("ProduceID") if isinstance(label, dict) else ""
    return identity if isinstance(identity, str) else ""


def _bad(path: Path, number: int, why: str) -> DataError:
    place = f"{path}:{number}" if number else str(path)
    return DataError(
        sanitize_line(why, 200),
        say(
            "请提供 medchat sessions export 写出的 .json，或 OpenAI、ShareGPT 形式的对话；没有导入任何内容",
            "give a .json of medchat sessions export, or conversations in OpenAI's or ShareGPT's form; "
            "nothing was imported",
        ),
        where=place,
    )


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        say(f"无法读取：{why}", f"cannot be read: {why}"),
        say("请检查路径和权限", "check the path and the permissions"),
        where=str(path),
    )
