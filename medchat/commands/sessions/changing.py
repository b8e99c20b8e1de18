"""`medchat sessions rename|delete`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from medchat.chat.session_lines import session_line
from medchat.cli.confirm import confirmed
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside
from medchat.commands.sessions.filters import chosen_filter, filter_flags
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.store import SessionRecord, SessionStore

#: The number of sessions listed before the deletion is confirmed.
_PREVIEW = 10


@click.command("rename", cls=LocalizedCommand, help=say("给会话改名。", "Give a session another name."))
@click.argument("session")
@click.argument("name")
def rename_command(session: str, name: str) -> int:
    """Rename a session."""
    with SessionStore.open() as store:
        record = store.rename(store.get(session).id, name)
    say_aside(f"{record.id}  {sanitize_line(record.name or '', 100)}")
    return 0


@click.command(
    "delete",
    cls=LocalizedCommand,
    help=say("彻底删除会话（磁盘上也不留）。", "Delete sessions, from the disk too."),
)
@click.argument("session", nargs=-1)
@filter_flags
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help=say("删除全部会话和输入历史", "delete all sessions and the input history"),
)
@click.option("--yes", is_flag=True, help=say("不再询问", "do not ask"))
def delete_command(
    session: tuple[str, ...], model: str, since: str | None, until: str | None, everything: bool, yes: bool
) -> int:
    """Delete some sessions, those of a filter, or all. Raises UsageError unless exactly one of them is given."""
    filtered = bool(model or since or until)
    if [bool(session), everything, filtered].count(True) != 1:
        raise UsageError(
            say("请指定会话编号、筛选条件或 --all 之一", "give session ids, a filter, or --all"),
            "medchat sessions delete ID | --since 2026-11-01 | --model llama | --all",
        )
    with SessionStore.open() as store:
        if session:
            records = tuple({record.id: record for record in map(store.get, session)}.values())
        else:
            records = store.list(chosen_filter(model, since, until, with_asks=True))
        if not yes and not _wanted(records):
            say_aside(say("已取消，未删除任何会话", "cancelled; no session was deleted"))
            return 0
        count = store.delete_all() if everything else store.delete(*(record.id for record in records))
    say_aside(say(f"已删除 {count} 个会话", f"deleted {count} session(s)"))
    return 0


def _wanted(records: Sequence[SessionRecord]) -> bool:
    """Show what would be deleted and ask. Raises UsageError if there is no terminal to ask on."""
    if not sys.stdin.isatty():
        raise UsageError(
            say("没有终端，无法询问是否删除", "there is no terminal to ask on"),
            say("确定要删除就加上 --yes", "add --yes to delete"),
        )
    for record in records[:_PREVIEW]:
        say_aside(session_line(record))
    if len(records) > _PREVIEW:
        say_aside(say(f"……共 {len(records)} 个", f"… {len(records)} in all"))
    question = say(
        f"删除 {len(records)} 个会话？无法恢复。", f"Delete {len(records)} session(s)? This cannot be undone."
    )
    return confirmed(question, default=False)
