"""`medchat sessions`: the saved sessions."""

from __future__ import annotations

import click

from medchat.cli.group import Group
from medchat.commands.sessions import changing, listing, transfer
from medchat.language import say


@click.group(
    cls=Group,
    help=say("保存的会话：查看、搜索、导出、删除。", "Saved sessions: list, search, export, delete."),
)
def command() -> None:
    """The command group."""


for subcommand in (
    listing.list_command,
    listing.show_command,
    listing.search_command,
    changing.rename_command,
    changing.delete_command,
    transfer.export_command,
    transfer.import_command,
):
    command.add_command(subcommand)
