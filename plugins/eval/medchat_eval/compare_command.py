"""`medchat eval compare`: several runs of one task side by side."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from medchat.plugin_kit import LocalizedCommand, UsageError, as_markdown, say, user_path, write_out
from medchat_eval.comparing import comparison_document, paired_tests, read_run


@click.command(
    "compare",
    cls=LocalizedCommand,
    help=say(
        "把同一任务的几次评测并排列出，逐题配对检验差别（McNemar、自助法）。每个目录前可以写上列名：列名=目录。",
        "Put several evaluations of one task side by side and test the differences question by question (McNemar,"
        " bootstrap). A folder may be given a heading: LABEL=DIR.",
    ),
)
@click.argument("runs", metavar="[LABEL=]DIR…", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def compare_runs(runs: tuple[str, ...], as_json: bool) -> int:
    """Print the comparison."""
    named = [_label_and_folder(run) for run in runs]
    twice = [label for label, count in Counter(label for label, _ in named).items() if count > 1]
    if twice or len(named) < 2:
        raise UsageError(
            say(f"列名重复：{twice[0]}", f"the same heading twice: {twice[0]}")
            if twice
            else say("至少要两次评测", "two evaluations at least"),
            "medchat eval compare before=results/a after=results/b",
        )
    read = [read_run(label, path) for label, path in named]
    tests = paired_tests(read)
    if not as_json:
        return write_out(as_markdown(comparison_document(read, tests)))
    metrics = {run.label: dict(run.metrics) for run in read}
    content = {"task": read[0].task, "metrics": metrics, "against_first": [asdict(one) for one in tests]}
    return write_out(json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _label_and_folder(run: str) -> tuple[str, Path]:
    label, equals, folder = run.partition("=")
    if equals and label and not user_path(run).exists():
        return label, user_path(folder)
    path = user_path(run)
    return path.name, path
