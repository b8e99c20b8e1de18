"""`medchat sessions list|show|search`: looking at saved sessions."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from medchat.chat.session_lines import (
    branch_mark,
    damage_mark,
    edited_mark,
    ending_mark,
    hit_lines,
    indexing,
    notice_heading,
    said_with,
    session_line,
)
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import MovingLine, say_aside, write_out
from medchat.commands.sessions.filters import chosen_filter, filter_flags
from medchat.errors import UsageError
from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.sanitize import sanitize, sanitize_line
from medchat.store import FoundTurn, SavedTurn, SessionRecord, SessionStore


def session_as_json(record: SessionRecord) -> dict[str, Any]:
    """Return a session's object for `list --json`."""
    return {
        "id": record.id,
        "name": record.name,
        "title": record.title,
        "kind": record.kind.value,
        "created": record.created.isoformat(),
        "updated": record.updated.isoformat(),
        "backbone": record.backbone,
        "model": record.model,
        "adapters": list(record.adapters),
        "template": record.template,
        "system": record.system,
        "turns": record.turns,
        "first_question": record.first_question,
        "damaged": record.damaged,
    }


def print_sessions(records: tuple[SessionRecord, ...]) -> int:
    """Print one line per session, the last changed first."""
    if not records:
        say_aside(
            say(
                "还没有保存的会话。开始一个：medchat chat",
                "there is no saved session yet. To begin one: medchat chat",
            )
        )
        return 0
    return write_out("".join(session_line(record) + "\n" for record in records))


#: The indentation of the program's lines below a turn, and of continuation lines of a message.
_IN, _FURTHER_IN = " " * 4, " " * 6


@click.command(
    "list", cls=LocalizedCommand, help=say("列出会话，最近的在前。", "List sessions, latest first.")
)
@filter_flags
@click.option("--all", "everything", is_flag=True, help=say("也列出 ask 的问答", "list those of `ask` too"))
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help=say("每页最多 N 个", "at most N sessions a page")
)
@click.option(
    "--page",
    type=click.IntRange(1),
    metavar="N",
    help=say("第 N 页（与 --limit 同用）", "page N, with --limit"),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def list_command(
    model: str,
    since: str | None,
    until: str | None,
    everything: bool,
    limit: int | None,
    page: int | None,
    as_json: bool,
) -> int:
    """List the sessions."""
    if page is not None and limit is None:
        raise UsageError(
            say("--page 要与 --limit 同用：一页有多少个", "--page needs --limit: how many a page has"),
            f"medchat sessions list --limit 20 --page {page}",
        )
    chosen = chosen_filter(model, since, until, with_asks=everything)
    with SessionStore.open() as store:
        records = store.list(chosen, limit=limit or -1, skip=((page or 1) - 1) * (limit or 0))
        others = not everything and not records and bool(store.list(limit=1))
    if as_json:
        return write_out(
            json.dumps([session_as_json(record) for record in records], ensure_ascii=False, indent=2) + "\n"
        )
    if others:
        say_aside(
            say(
                "没有符合条件的会话；加上 --all 也列出 ask 的问答",
                "no such session; --all lists those of ask too",
            )
        )
        return 0
    return print_sessions(records)


@click.command(
    "show",
    cls=LocalizedCommand,
    help=say("显示一个会话的全部问答。", "Show the questions and answers of a session."),
)
@click.argument("session")
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_command(session: str, as_json: bool) -> int:
    """Show one session, by id, name or prefix of an id."""
    with SessionStore.open() as store:
        record = store.get(session)
        transcript, points = store.transcript(record.id), store.branches(record.id)
    if as_json:
        from medchat.transcripts.export import session_json

        whole = {
            **session_as_json(record),
            **session_json(transcript),
            "disclaimer": ai_mark(),
        }
        return write_out(json.dumps(whole, ensure_ascii=False, indent=2) + "\n")
    about = (record.id, record.name, record.backbone, record.model)
    lines = ["  ".join(sanitize_line(part, 200) for part in about if part) + damage_mark(record)]
    turns = transcript.turns
    for before, saved in zip((None, *turns), turns, strict=False):
        lines += ["", *_turn_lines(saved, before)]
        lines += [branch_mark(point) for point in points if point.position == saved.position]
    lines += [branch_mark(point) for point in points if point.current is None]
    return write_out("\n".join([*lines, "", ai_mark()]) + "\n")


def _turn_lines(saved: SavedTurn, before: SavedTurn | None) -> list[str]:
    """Return a turn as lines, with the notices before its answer, and its settings if they changed."""
    model, with_what = saved.origin.model, said_with(saved)
    if before and said_with(saved, seeded=False) == said_with(before, seeded=False):
        with_what = []
    changed = [f"[{sanitize_line(model, 200)}]"] if before and model and model != before.origin.model else []
    return [
        *changed,
        say("问：", "Q: ") + _said(saved.turn.question),
        *(notice_heading() + say("：", ": ") + _said(notice) for notice in saved.origin.notices),
        say("答：", "A: ")
        + _said(saved.turn.answer)
        + ending_mark(saved.turn.finish)
        + edited_mark(saved)
        + damage_mark(saved),
        *(_IN + line for line in with_what),
    ]


def _said(text: str) -> str:
    """Return a message, its continuation lines indented more than any line of the program."""
    return sanitize(text).replace("\n", "\n" + _FURTHER_IN)


@click.command(
    "search",
    cls=LocalizedCommand,
    help=say(
        "在全部问答里搜索文字。给出几个词时，每个都要出现。",
        "Search all questions and answers for a text; where several words are given, each must occur.",
    ),
)
@click.argument("words", nargs=-1, required=True, metavar="TEXT…")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=20,
    metavar="N",
    help=say("最多显示 N 处，0 为全部", "at most N hits, 0 for all of them"),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def search_command(words: tuple[str, ...], limit: int, as_json: bool) -> int:
    """Search the sessions."""
    if not any(word.strip() for word in words):
        raise UsageError(
            say("要搜索的文字是空的", "the text to search for is empty"), "medchat sessions search TEXT"
        )
    with SessionStore.open() as store, MovingLine() as line:
        found = store.search(words, limit, lambda left: line.show(indexing(left)))
        records = {hit.session_id: store.get(hit.session_id) for hit in found}
    if as_json:
        hits = [_hit_as_json(hit, records[hit.session_id]) for hit in found]
        return write_out(json.dumps(hits, ensure_ascii=False, indent=2) + "\n")
    if not found:
        say_aside(say("没有找到", "nothing found"))
        return 0
    marks = ("\x1b[1;7m", "\x1b[0m") if sys.stdout.isatty() else ("【", "】")
    return write_out("".join(hit_lines(hit, records[hit.session_id], marks) + "\n" for hit in found))


def _hit_as_json(hit: FoundTurn, record: SessionRecord) -> dict[str, Any]:
    excerpts = [
        {
            "where": "answer" if excerpt.in_answer else "question",
            "excerpt": excerpt.text,
            "matches": excerpt.matches,
        }
        for excerpt in hit.excerpts
    ]
    return {
        "id": record.id,
        "title": record.title,
        "turn": hit.saved.position,
        "current": not hit.elsewhere,
        **excerpts[0],
        "match": hit.excerpts[0].matches[0],
        "excerpts": excerpts,
        "created": hit.saved.created.isoformat(),
    }
