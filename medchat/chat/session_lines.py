"""Saved sessions, and search hits in them, as lines of text for a list. All of it is sanitized."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from medchat.api import Finish
from medchat.language import say
from medchat.sanitize import sanitize, sanitize_line
from medchat.store import BranchPoint, Excerpt, FoundTurn, SavedTurn, SessionKind, SessionRecord


def session_line(record: SessionRecord) -> str:
    """Return a session on one line: id, time, turns, family, title, and its kind if it is not a chat."""
    when = record.updated.astimezone().strftime("%Y-%m-%d %H:%M")
    kind = {SessionKind.ASK: " [ask]", SessionKind.IMPORTED: say("（导入）", " [imported]")}.get(
        record.kind, ""
    )
    return (
        f"{record.id}  {when}  {record.turns:>3}  "
        f"{sanitize_line(record.backbone, 12):<10} {sanitize_line(record.title, 40)}{kind}{damage_mark(record)}"
    )


def damage_mark(record: SessionRecord | SavedTurn) -> str:
    """Return the message that a part could not be read, "" if all could."""
    return say("（有损坏）", " (damaged)") if record.damaged else ""


def ending_mark(finish: Finish) -> str:
    """Return why an answer ended early, "" if the model ended it."""
    return {
        Finish.LENGTH: say("（达到长度上限）", " [length]"),
        Finish.CANCELLED: say("（已停止）", " [cancelled]"),
        Finish.ERROR: say("（出错）", " [error]"),
    }.get(finish, "")


def said_with(saved: SavedTurn, *, seeded: bool = True) -> list[str]:
    """Return the context of a saved answer, a line each: the model, the template, the decoding settings.

    What was not recorded is left out, and the seed, which differs for each answer, unless `seeded`.
    """
    origin = saved.origin
    folders = (Path(place).name for place in (origin.model, *origin.adapters))
    who = f"{origin.backbone} {' + '.join(filter(None, folders))}".strip()
    settings = [
        f"{name.replace('_', '-')} {_as_said(value)}"
        for name, value in origin.settings.items()
        if value is not None and (seeded or name != "seed")
    ]
    parts = (
        (say("回答者", "answered by"), who),
        (say("模板", "template"), origin.template),
        (say("参数", "settings"), say("，", ", ").join(settings)),
    )
    return [sanitize_line(f"{name}{say('：', ': ')}{value}", 300) for name, value in parts if value]


def _as_said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def edited_mark(saved: SavedTurn) -> str:
    """Return the message that the user edited the answer, "" if it is as it was generated."""
    return say("（已由用户修改）", " (edited by the user)") if saved.origin.edited else ""


def notice_heading() -> str:
    """Return the heading of a notice before an answer: neither the user nor the model wrote it."""
    return say("MedChat 提示", "MedChat's notice")


def branch_mark(point: BranchPoint) -> str:
    """Return the message that the conversation branches at this place, and which branch is shown."""
    count = len(point.alternatives)
    if point.current is None:
        return say(f"（之后另有 {count} 个分支）", f"({count} other ways to go on from here)")
    number = point.current + 1
    return say(f"（第 {number} 个分支，共 {count} 个）", f"(branch {number} of {count})")


def indexing(left: int) -> str:
    """Return the message that turns are being indexed for a search, and how many are left."""
    return say(f"正在为搜索建立索引，还剩 {left} 轮", f"indexing for the search, {left} turns left")


def hit_lines(hit: FoundTurn, record: SessionRecord, marks: tuple[str, str] = ("【", "】")) -> str:
    """Return a search hit: a line for the turn, one for each excerpt, each match between `marks`."""
    branch = say("（在另一分支）", " (on another branch)") if hit.elsewhere else ""
    turn = f"{record.id}  #{hit.saved.position:<3} {sanitize_line(record.title, 20)}{branch}"
    return "\n".join([turn, *(f"    {_excerpt_line(excerpt, marks)}" for excerpt in hit.excerpts)])


def _excerpt_line(excerpt: Excerpt, marks: tuple[str, str]) -> str:
    text, borders = excerpt.text, [0, *(place for match in excerpt.matches for place in match)]
    parts = [sanitize(" ".join(text[a:b].split("\n"))) for a, b in pairwise([*borders, len(text)])]
    marked = "".join(
        f"{marks[0]}{part}{marks[1]}" if number % 2 else part for number, part in enumerate(parts)
    )
    who = say("答", "A") if excerpt.in_answer else say("问", "Q")
    return f"{who}{say('：', ': ')}{marked}"
