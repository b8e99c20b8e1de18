"""`medchat eval compare`: several runs of one task, or several result files of `medchat infer`, side by side."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    UsageError,
    as_html,
    as_markdown,
    check_output_file,
    output_error,
    say,
    user_path,
    write_out,
    write_whole_file,
)
from medchat_eval.comparing import EvaluationRun, paired_tests, read_run
from medchat_eval.comparison_page import comparison_data, comparison_document
from medchat_eval.scored_answers import lacks_text_libraries, read_answers_run


@click.command(
    "compare",
    cls=LocalizedCommand,
    help=say(
        "把同一任务的几次评测，或 medchat infer 的几个结果文件并排列出：指标、逐题配对的检验（McNemar、自助法）、"
        "每个回答和它的得分。每个目录或文件前可以写上列名：列名=目录。",
        "Put several evaluations of one task, or result files of medchat infer, side by side: metrics, tests question"
        " by question (McNemar, bootstrap), each answer with its score. Each may be given a heading: LABEL=DIR.",
    ),
)
@click.argument("runs", metavar="[LABEL=]DIR|FILE…", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
@click.option(
    "--output",
    metavar="FILE",
    help=say(
        "写到这个文件；后缀 .html、.json 决定格式，其他为 Markdown",
        "write to this file; the suffix .html or .json decides the form, else Markdown",
    ),
)
def compare_runs(runs: tuple[str, ...], as_json: bool, output: str | None) -> int:
    """Print the comparison."""
    named = [_label_and_path(run) for run in runs]
    twice = [label for label, count in Counter(label for label, _ in named).items() if count > 1]
    if twice or len(named) < 2:
        raise UsageError(
            say(f"列名重复：{twice[0]}", f"the same heading twice: {twice[0]}")
            if twice
            else say("至少要两次评测", "two evaluations at least"),
            "medchat eval compare before=results/a after=results/b",
        )
    read = [_read(label, path) for label, path in named]
    if output is None:
        return write_out(_as_text(read, ".json" if as_json else ""))
    target = user_path(output)
    check_output_file(target, {str(path): path for _, path in named})
    try:
        write_whole_file(target, _as_text(read, ".json" if as_json else target.suffix.lower()), private=True)
    except OSError as error:
        raise output_error(target, error) from error
    return 0


def _read(label: str, path: Path) -> EvaluationRun:
    """Read a run: a folder or a `.json` holds an evaluation, anything else the lines of `medchat infer`."""
    if path.is_dir() or path.suffix.lower() == ".json" or not path.exists():
        return read_run(label, path)
    if lacks_text_libraries():
        click.echo(
            say(
                "只有按字的 ROUGE-L：要按词的指标，请 pip install 'medchat[eval]'",
                "ROUGE-L by characters alone: for the metrics by words, pip install 'medchat[eval]'",
            ),
            err=True,
        )
    return read_answers_run(label, path)


def _as_text(read: list[EvaluationRun], suffix: str) -> str:
    tests = paired_tests(read)
    if suffix == ".json":
        return json.dumps(comparison_data(read, tests), ensure_ascii=False, indent=2) + "\n"
    page = comparison_document(read, tests)
    return as_html(page) if suffix in (".html", ".htm") else as_markdown(page)


def _label_and_path(run: str) -> tuple[str, Path]:
    label, equals, path = run.partition("=")
    if equals and label and not user_path(run).exists():
        return label, user_path(path)
    whole = user_path(run)
    return (whole.stem if whole.is_file() else whole.name), whole
