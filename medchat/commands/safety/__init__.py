"""`medchat safety`: inspecting and testing the emergency rules."""

from __future__ import annotations

import json

import click

from medchat import medical_safety
from medchat.cli.group import Group, LocalizedCommand
from medchat.cli.output import write_out
from medchat.commands.safety import check, labelled
from medchat.language import say


@click.group(
    cls=Group,
    help=say(
        "紧急情况：程序会提示什么，该打哪个电话。",
        "Emergencies: what the program points out, and whom to call.",
    ),
)
def command() -> None:
    """The command group."""


@click.command(
    "hotlines",
    cls=LocalizedCommand,
    help=say(
        "紧急电话（中国大陆）和核对日期。", "Emergency numbers (mainland China) and when they were checked."
    ),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def print_hotlines(as_json: bool) -> int:
    """Print the emergency numbers."""
    if not as_json:
        return write_out(medical_safety.hotlines() + "\n")
    numbers = [
        {
            "number": line.number,
            "what": say(line.zh, line.en),
            "checked": medical_safety.HOTLINES_CHECKED,
            "region": medical_safety.HOTLINES_REGION,
            "region_note": medical_safety.hotlines_region(),
        }
        for line in medical_safety.HOTLINES
    ]
    return write_out(json.dumps(numbers, ensure_ascii=False, indent=2) + "\n")


for subcommand in (check.command, print_hotlines, labelled.command):
    command.add_command(subcommand)
