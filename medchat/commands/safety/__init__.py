"""`medchat safety`: what the program does about emergencies, to be looked at and tried."""

from __future__ import annotations

import click

from medchat.cli.group import Group
from medchat.commands.safety import check, hotlines, labelled
from medchat.language import say


@click.group(
    cls=Group,
    help=say(
        "紧急情况：程序会提示什么，该打哪个电话。",
        "Emergencies: what the program points out, and whom to call.",
    ),
)
def command() -> None:
    """Hold the subcommands."""


for subcommand in (check.command, hotlines.command, labelled.command):
    command.add_command(subcommand)
