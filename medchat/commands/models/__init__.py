"""`medchat models`: listing, describing, downloading, verifying and removing weights."""

from __future__ import annotations

import click

from medchat.cli.group import Group
from medchat.commands.models import clean, pull, quantize, show, verify
from medchat.commands.models import list as list_module
from medchat.language import say


@click.group(
    cls=Group,
    help=say(
        "查看已知的权重和目录的内容；下载、校验、清除。",
        "Known weights and what a folder holds; fetch, verify, clean up.",
    ),
)
def command() -> None:
    """The command group."""


for subcommand in (
    list_module.command,
    show.command,
    pull.command,
    verify.command,
    quantize.command,
    clean.command,
):
    command.add_command(subcommand)
