"""The folder of a run: results.json, report.md with its pictures, report.html, for their owner alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medchat.plugin_kit import (
    UsageError,
    as_html,
    as_markdown,
    output_error,
    sanitize_line,
    say,
    write_whole_file,
)
from medchat_eval.report import evaluation_document, metric_cells
from medchat_eval.results import Evaluation

RESULTS, MARKDOWN, HTML = "results.json", "report.md", "report.html"
#: The answers of a model, or the verdicts of a judge: what a run that continues need not ask again.
ANSWERS = "answers.jsonl"


def open_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder. Raises UsageError where it holds a run that is neither to continue nor to be replaced."""
    if any((folder / name).exists() for name in (RESULTS, ANSWERS)) and not (resume or overwrite):
        raise UsageError(
            say("--output 里已经有一次评测", "--output holds an evaluation already"),
            say(
                "换一个 --output，用 --resume 继续，或用 --overwrite 重来",
                "use another --output, go on with --resume, or start over with --overwrite",
            ),
            where=str(folder),
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the files and say on stderr what was found. Raises MedchatError if the disk refuses them."""
    document = evaluation_document(evaluation)
    contents = {
        RESULTS: json.dumps(evaluation.as_json(), ensure_ascii=False, indent=1) + "\n",
        MARKDOWN: as_markdown(document),
        HTML: as_html(document),
        **{picture.file: picture.svg for picture in document.pictures},
    }
    for name, content in contents.items():
        try:
            write_whole_file(folder / name, content, private=True)
        except OSError as error:
            raise output_error(folder / name, error) from error
    for name, metric in evaluation.metrics.items():
        value, interval, chance, count = metric_cells(metric)
        line = f"{name} {value}"
        if interval:
            line += f" [{interval}]"
        if chance:
            line += say(f"，随机水平 {chance}", f", chance {chance}")
        click.echo(f"{line}{say('，', ', ')}n = {count}", err=True)
    for warning in evaluation.warnings:
        click.echo(say(f"！{warning}", f"! {warning}"), err=True)
    click.echo(sanitize_line(str(folder / MARKDOWN)), err=True)
