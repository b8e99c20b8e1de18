"""`medchat data split`: training data in parts, no source in two of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import click

from medchat.plugin_kit import (
    DataError,
    LocalizedCommand,
    UsageError,
    sanitize_line,
    say,
    user_path,
)
from medchat_data.flags import OVERWRITE, SEED
from medchat_data.record_files import read_records, require_free, write_records
from medchat_data.splitting import LEFT_OUT, divided, sources_of

_PART = re.compile(r"\s*(?P<name>[\w-]{1,40})\s*=\s*(?P<share>\d{1,6}(?:\.\d{1,6})?)\s*")


@click.command(
    "split",
    cls=LocalizedCommand,
    help=say(
        "把数据分成训练集、验证集等几份，同一来源的记录只出现在一份里。",
        "Divide data into parts for training, validation and testing; no source stands in two of them.",
    ),
)
@click.argument("data", metavar="FILE")
@click.option(
    "--parts",
    default="train=8,dev=1,test=1",
    show_default=True,
    metavar="NAME=N,…",
    help=say("各份的名称和比例", "the names of the parts and their shares"),
)
@click.option(
    "--output",
    metavar="PATH",
    required=True,
    help=say("文件名的开头：路径.train.jsonl 等", "how the files' names begin: PATH.train.jsonl and so on"),
)
@SEED
@OVERWRITE
def split_data(data: str, parts: str, output: str, seed: int, overwrite: bool) -> int:
    """Split the file; records between the parts go into a file of their own."""
    path, begin = user_path(data), user_path(output)
    shares = _shares(parts)
    records = read_records(path)
    try:
        places = divided(sources_of(records), shares, seed)
    except ValueError as error:
        raise DataError(
            say(f"来源太少，分不成 {len(shares)} 份", f"too few sources for {len(shares)} parts ({error})"),
            say("减少 --parts 的份数", "name fewer parts in --parts"),
            where=str(path),
        ) from None
    counts = Counter(places)
    names = [*shares, *([LEFT_OUT] if counts[LEFT_OUT] else [])]
    targets = {name: begin.with_name(f"{begin.name}.{name}.jsonl") for name in names}
    for target in targets.values():
        require_free(target, inputs=[path], overwrite=overwrite)
    for name, target in targets.items():
        chosen = [value for (value, _), place in zip(records, places, strict=True) if place == name]
        write_records(target, chosen)
        click.echo(f"{sanitize_line(str(target))}{say('：', ': ')}{len(chosen)}", err=True)
    if counts[LEFT_OUT]:
        click.echo(
            say(
                f"{counts[LEFT_OUT]} 条的来源分属几份（如比较两种疾病的问题），未分入任何一份",
                f"{counts[LEFT_OUT]} have sources in several parts (such as comparisons) and are in none of them",
            ),
            err=True,
        )
    return 0


def _shares(parts: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for part in parts.split(","):
        match = _PART.fullmatch(part)
        name, share = (match["name"], float(match["share"])) if match else ("", 0.0)
        if share <= 0 or name in found or name == LEFT_OUT:
            raise UsageError(
                say(
                    f"--parts 里的“{part}”不是新的名称和正数",
                    f"{part!r} in --parts is no new name with a positive number",
                ),
                "--parts train=8,dev=1,test=1",
            )
        found[name] = share
    return found
