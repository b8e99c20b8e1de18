"""`medchat sessions`: the saved sessions."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from medchat.cli.group import Group
from medchat.cli.output import say_aside, write_out
from medchat.errors import UsageError
from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.sanitize import sanitize, sanitize_line
from medchat.store import SavedTurn, SessionRecord, SessionStore


def _as_json(record: SessionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
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


def _turn_as_json(saved: SavedTurn) -> dict[str, Any]:
    return {
        "position": saved.position,
        "question": saved.turn.question,
        "answer": saved.turn.answer,
        "finish": str(saved.turn.finish),
        "created": saved.created.isoformat(),
        "prompt_tokens": saved.prompt_tokens,
        "completion_tokens": saved.completion_tokens,
        "seconds": saved.seconds,
        "damaged": saved.damaged,
    }


def _mark(record: SessionRecord | SavedTurn) -> str:
    return say("（有损坏）", " (damaged)") if record.damaged else ""


def print_sessions(records: tuple[SessionRecord, ...]) -> int:
    """Print one line a session, the one changed last first."""
    if not records:
        say_aside(
            say("还没有保存的会话。开始一个：medchat chat", "no saved session yet. Begin one: medchat chat")
        )
        return 0
    lines = []
    for record in records:
        when = record.updated.astimezone().strftime("%Y-%m-%d %H:%M")
        title = record.name or record.first_question
        lines.append(
            f"{record.id}  {when}  {record.turns:>3}  "
            f"{sanitize_line(record.backbone, 12):<10} {sanitize_line(title, 40)}{_mark(record)}"
        )
    return write_out("\n".join(lines) + "\n")


@click.group(cls=Group, help=say("查看、删除保存的会话。", "List, show and delete saved sessions."))
def command() -> None:
    """Hold the subcommands."""


@command.command("list", help=say("列出会话，最近的在前。", "List sessions, latest first."))
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def list_sessions(as_json: bool) -> int:
    """List the sessions."""
    with SessionStore.open() as store:
        records = store.list()
    if as_json:
        return write_out(
            json.dumps([_as_json(record) for record in records], ensure_ascii=False, indent=2) + "\n"
        )
    return print_sessions(records)


@command.command("show", help=say("显示一个会话的全部问答。", "Show the questions and answers of a session."))
@click.argument("session")
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_session(session: str, as_json: bool) -> int:
    """Show one session, by id, name or the beginning of an id."""
    with SessionStore.open() as store:
        record = store.get(session)
        turns = store.turns(record.id)
    if as_json:
        whole = {
            **_as_json(record),
            "disclaimer": ai_mark(),
            "log": [_turn_as_json(saved) for saved in turns],
        }
        return write_out(json.dumps(whole, ensure_ascii=False, indent=2) + "\n")
    lines = [
        "  ".join(
            sanitize_line(part, 200)
            for part in (record.id, record.name, record.backbone, record.model)
            if part
        )
        + _mark(record)
    ]
    for saved in turns:
        finish = "" if saved.turn.finish == "stop" else f" [{saved.turn.finish}]"
        lines += [
            "",
            say("问：", "Q: ") + sanitize(saved.turn.question),
            say("答：", "A: ") + sanitize(saved.turn.answer) + finish + _mark(saved),
        ]
    lines += ["", ai_mark()]
    return write_out("\n".join(lines) + "\n")


@command.command("delete", help=say("彻底删除会话（磁盘上也不留）。", "Delete sessions, from the disk too."))
@click.argument("session", nargs=-1)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help=say("删除全部会话和输入历史", "delete all sessions and the input history"),
)
@click.option("--yes", is_flag=True, help=say("不再询问", "do not ask"))
def delete(session: tuple[str, ...], everything: bool, yes: bool) -> int:
    """Delete some sessions, or all."""
    if bool(session) == everything:
        raise UsageError(
            say("请给出会话编号，或用 --all", "name a session, or give --all"),
            "medchat sessions delete ID | --all",
        )
    with SessionStore.open() as store:
        records = store.list() if everything else tuple(store.get(reference) for reference in session)
        if not yes:
            _confirm(len(records))
        if everything:
            count = store.delete_all()
        else:
            count = len({record.id for record in records})
            for identity in {record.id for record in records}:
                store.delete(identity)
    say_aside(say(f"已删除 {count} 个会话", f"deleted {count} session(s)"))
    return 0


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            say("没有终端，无法询问是否删除", "there is no terminal to ask on"),
            say("确定要删除就加上 --yes", "add --yes to delete"),
        )
    question = say(
        f"删除 {count} 个会话？无法恢复。[y/N] ", f"Delete {count} session(s)? This cannot be undone. [y/N] "
    )
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes", "是"):
        raise UsageError(say("没有删除任何内容", "nothing was deleted"))
