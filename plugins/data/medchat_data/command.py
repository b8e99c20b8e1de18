"""`medchat data`: the group that holds the subcommands, and the sample of knowledge that is shipped."""

from __future__ import annotations

from importlib.resources import files

import click

from medchat.plugin_kit import Group, LocalizedCommand, say, write_out
from medchat_data.build_command import build
from medchat_data.cleaning_commands import contamination, dedup, redact_data
from medchat_data.convert_command import convert
from medchat_data.mix_command import mix
from medchat_data.split_command import split_data
from medchat_data.stats_command import stats
from medchat_data.validate_command import validate

#: Forty knowledge records with their sources; how they were written: docs/data.md.
SAMPLE_FILE = "data/knowledge.jsonl"


@click.group(
    "data",
    cls=Group,
    help=say(
        "训练数据：用知识生成、检查、整理。",
        "Training data: built from knowledge, checked and prepared.",
    ),
)
def data() -> None:
    """Hold the subcommands."""


@data.command(
    "sample",
    cls=LocalizedCommand,
    help=say(
        "把随程序附带的 40 条知识记录写到标准输出，供试用和参照。",
        "Write the 40 knowledge records that are shipped to stdout, to try out and to go by.",
    ),
)
def sample() -> int:
    """Write the records as they are."""
    return write_out(files("medchat_data").joinpath(SAMPLE_FILE).read_text(encoding="utf-8"))


for subcommand in (build, validate, stats, convert, split_data, mix, dedup, contamination, redact_data):
    data.add_command(subcommand)
