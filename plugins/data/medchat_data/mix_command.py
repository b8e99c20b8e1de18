"""`medchat data mix`: several files in given shares, shuffled. General data among it keeps what a model could do."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import DataError, LocalizedCommand, UsageError, sanitize_line, say, user_path
from medchat_data.flags import OVERWRITE, REQUIRED_OUTPUT, SEED
from medchat_data.record_files import read_records, require_free, write_records


@click.command(
    "mix",
    cls=LocalizedCommand,
    help=say(
        "按比例混合几个文件并打乱顺序；混入通用数据可以减少遗忘。记录不会重复使用。",
        "Mix files in given shares and shuffle them; general data among it keeps a model from forgetting. No record"
        " is used twice.",
    ),
)
@click.argument("parts", metavar="FILE=N…", nargs=-1, required=True)
@REQUIRED_OUTPUT
@click.option(
    "--total",
    type=click.IntRange(1),
    metavar="N",
    help=say("一共多少条（默认尽可能多）", "how many in all (default: as many as there can be)"),
)
@SEED
@OVERWRITE
def mix(parts: tuple[str, ...], output: str, total: int | None, seed: int, overwrite: bool) -> int:
    """Write the mixture; say how many come from where."""
    shares = [_share(part) for part in parts]
    target = user_path(output)
    require_free(target, inputs=[path for path, _ in shares], overwrite=overwrite)
    pools = [[value for value, _ in read_records(path)] for path, _ in shares]
    counts = mixed_counts([len(pool) for pool in pools], [share for _, share in shares], total)
    for (path, _), pool, count in zip(shares, pools, counts, strict=True):
        if count > len(pool):
            raise DataError(
                say(f"只有 {len(pool)} 条，需要 {count} 条", f"{len(pool)} records, and {count} are needed"),
                say("减小 --total 或它的比例", "lower --total or its share"),
                where=str(path),
            )
    chance = random.Random(seed)
    chosen: list[Mapping[str, Any]] = [
        pool[place]
        for pool, count in zip(pools, counts, strict=True)
        for place in sorted(chance.sample(range(len(pool)), count))
    ]
    chance.shuffle(chosen)
    write_records(target, chosen)
    for (path, _), pool, count in zip(shares, pools, counts, strict=True):
        shown = sanitize_line(str(path))
        click.echo(
            say(f"{shown}：{len(pool)} 条中的 {count} 条", f"{shown}: {count} of {len(pool)}"), err=True
        )
    shown = sanitize_line(str(target))
    click.echo(say(f"共 {len(chosen)} 条：{shown}", f"{len(chosen)} records: {shown}"), err=True)
    return 0


def mixed_counts(sizes: Sequence[int], shares: Sequence[float], total: int | None) -> list[int]:
    """Return how many records to take of pools of those sizes, so that they are in those shares.

    Without a `total` as many as the pool allows that is the first to run out. What is left by rounding goes to the
    largest remainders.
    """
    whole = sum(shares)
    if total is None:
        total = int(min(size * whole / share for size, share in zip(sizes, shares, strict=True)) + 1e-9)
    exact = [total * share / whole for share in shares]
    counts = [int(one + 1e-9) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (counts[place] - exact[place], place))
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _share(part: str) -> tuple[Path, float]:
    name, sign, number = part.rpartition("=")
    try:
        share = float(number) if sign and name else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share < 1e9:
        raise UsageError(
            say(
                f"“{part}”应当是文件名、等号和一个正数",
                f"{part!r} must be a file, = and a positive number",
            ),
            "medchat data mix medical.jsonl=3 general.jsonl=1 --output train.jsonl",
        )
    return user_path(name), share
