"""`medchat export`: the group that holds the subcommands."""

from __future__ import annotations

import click

from medchat.plugin_kit import Group, say
from medchat_export.gguf_commands import gguf, ollama
from medchat_export.merge_command import card_command, merge_command


@click.group(
    "export",
    cls=Group,
    help=say(
        "导出模型：合并适配器，转换为 GGUF，供 Ollama 使用，写模型卡。",
        "Export a model: adapters merged, as GGUF, for Ollama, with a model card.",
    ),
)
def export_group() -> None:
    """Hold the subcommands."""


for subcommand in (merge_command, gguf, ollama, card_command):
    export_group.add_command(subcommand)
