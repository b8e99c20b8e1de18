"""The folder of a run: results.json, report.md with its pictures, report.html, for their owner alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import click

from medchat.plugin_kit import (
    CallLimits,
    OpenedModel,
    Results,
    StoredCalls,
    UsageError,
    as_html,
    as_markdown,
    open_calls,
    open_results,
    output_error,
    sanitize_line,
    say,
    write_whole_file,
)
from medchat_eval.report import evaluation_document, metric_cells
from medchat_eval.results import Evaluation, require_gates

RESULTS, MARKDOWN, HTML = "results.json", "report.md", "report.html"
#: The answers of a model, or the verdicts of a judge: what a run that continues need not ask again.
ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """Where an evaluation goes, what becomes of one that is there, and the least values by metric."""

    path: Path
    resume: bool
    overwrite: bool
    gates: Mapping[str, float]

    def make(self) -> None:
        """Make it. Raises UsageError where it holds a run that is neither to continue nor to be replaced."""
        is_used = any((self.path / name).exists() for name in (RESULTS, ANSWERS))
        if is_used and not (self.resume or self.overwrite):
            raise UsageError(
                say("--output 里已经有一次评测", "--output holds an evaluation already"),
                say(
                    "换一个 --output，用 --resume 继续，或用 --overwrite 重来",
                    "use another --output, go on with --resume, or start over with --overwrite",
                ),
                where=str(self.path),
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from error

    def answers(self) -> AbstractContextManager[Results]:
        """Open the file of the model's answers, those of an earlier run in it if this one continues it."""
        return open_results(self.path / ANSWERS, resume=self.resume, overwrite=self.overwrite)

    def calls(self, opened: OpenedModel, limits: CallLimits) -> AbstractContextManager[StoredCalls]:
        """Open the same file as that of the calls to a judge."""
        return open_calls(self.path / ANSWERS, opened, limits, resume=self.resume, overwrite=self.overwrite)

    def finish(self, evaluation: Evaluation) -> int:
        """Write the reports and return 0. Raises GateError (exit code 7) where a metric is under its least value."""
        write_evaluation(self.path, evaluation)
        require_gates(evaluation.metrics, self.gates)
        return 0


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
