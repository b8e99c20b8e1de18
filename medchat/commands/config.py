"""`medchat config`: the settings and their origins."""

from __future__ import annotations

import json
from typing import Any

import click

from medchat import paths
from medchat.chat.model_choice import open_registry
from medchat.cli.group import Group
from medchat.cli.output import aligned, write_out
from medchat.errors import MedchatError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.settings import Effective, Settings

#: The widest value that `config show --origin` aligns.
_VALUE_CELLS = 44


def _effective(settings: Settings) -> tuple[Effective, ...]:
    """Return the effective settings, including the chosen backbone's own defaults."""
    name = settings.value("backbone")
    if not name:
        return settings.effective()
    try:
        backbone = open_registry(settings).backbone(str(name))
    except MedchatError:  # config show must work especially when something is broken
        return settings.effective()
    return settings.effective(backbone.name, backbone.generation)


def _shown(value: Any) -> str:
    if value is None:
        return say("（未设置）", "(unset)")
    return json.dumps(value, ensure_ascii=False)


@click.group(cls=Group, help=say("查看配置。", "Look at the configuration."))
def command() -> None:
    """The command group."""


@command.command("show", help=say("显示每个配置项现在的值。", "Show the value of every setting."))
@click.option("--origin", is_flag=True, help=say("同时显示来源", "also show where each value comes from"))
@click.option("--profile", default="", metavar="NAME", help=say("在这个配置方案下", "under this profile"))
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_settings(origin: bool, profile: str, as_json: bool) -> int:
    """Show the settings."""
    settings = Settings.load(profile=profile)
    rows = _effective(settings)
    if as_json:
        whole = {row.key.name: {"value": row.value, "origin": str(row.origin)} for row in rows}
        values: dict[str, Any] = whole if origin else {name: item["value"] for name, item in whole.items()}
        return write_out(json.dumps(values, ensure_ascii=False, indent=2) + "\n")
    lines = [f"{row.key.name} = {sanitize_line(_shown(row.value), 200)}" for row in rows]
    if origin:
        from rich.cells import cell_len  # slow to import

        origins = [f"# {sanitize_line(str(row.origin), 200)}" for row in rows]
        # Longer values, such as paths, are not aligned: they would push all others off the screen.
        short = [at for at, line in enumerate(lines) if cell_len(line) <= _VALUE_CELLS]
        beside = aligned([(lines[at], origins[at]) for at in short], indent=0)
        lines = [f"{line}  {where}" for line, where in zip(lines, origins, strict=True)]
        for at, line in zip(short, beside, strict=True):
            lines[at] = line
    return write_out("\n".join(lines) + "\n")


@command.command("path", help=say("显示配置文件的位置。", "Show where the configuration file is."))
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_path(as_json: bool) -> int:
    """Print the path of the user's configuration file."""
    file = paths.config_file()
    if as_json:
        whole = {
            "path": str(file),
            "exists": file.exists(),
            "project": str(paths.project_config_file().absolute()),
        }
        return write_out(json.dumps(whole, ensure_ascii=False, indent=2) + "\n")
    return write_out(f"{file}\n")
