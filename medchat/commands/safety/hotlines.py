"""`medchat safety hotlines`: the emergency numbers, and when they were checked."""

from __future__ import annotations

import json

import click

from medchat import medical_safety
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import write_out
from medchat.language import say


@click.command(
    "hotlines",
    cls=LocalizedCommand,
    help=say(
        "紧急电话（中国大陆）和核对日期。", "Emergency numbers (mainland China) and when they were checked."
    ),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(as_json: bool) -> int:
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
