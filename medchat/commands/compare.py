"""`medchat compare`: the answers of several runs of `medchat infer`, side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from medchat import medical_safety
from medchat.batch.comparison import Comparison, read_column
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.disk import output_error
from medchat.errors import UsageError
from medchat.language import say
from medchat.paths import make_private
from medchat.sanitize import sanitize_line
from medchat.user_paths import user_path
from medchat.whole_file import check_output_file, write_whole_file


@click.command(
    cls=LocalizedCommand,
    help=say(
        "把几个 medchat infer 结果文件并排成一张表（Markdown，或 --json）。每个文件前可以写上列名：列名=文件。",
        "Put result files of medchat infer side by side in a table (Markdown, or --json). A file may be given"
        " a heading: LABEL=FILE.",
    ),
)
@click.argument("results", metavar="[LABEL=]FILE…", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
@click.option("--output", metavar="FILE", help=say("写到这个文件", "write to this file"))
def command(results: tuple[str, ...], as_json: bool, output: str | None) -> int:
    """Compare result files."""
    named = [_label_and_path(result) for result in results]
    labels = [label for label, _ in named]
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(
            say(f"列名重复：{'、'.join(repeated)}", f"the same heading twice: {', '.join(repeated)}"),
            say("写成 列名=文件", "write LABEL=FILE"),
        )
    comparison = Comparison(tuple(read_column(label, path) for label, path in named))
    for column in comparison.columns:
        if column.torn:
            say_aside(
                say(
                    f"{sanitize_line(str(column.path))} 的最后一行不完整，未列出；用 medchat infer --resume 补全",
                    f"the last line of {sanitize_line(str(column.path))} is incomplete and left out;"
                    " medchat infer --resume completes it",
                )
            )
    for label, count in comparison.lacking.items():
        say_aside(
            say(
                f"{sanitize_line(label)}：{count} 个问题没有回答",
                f"{sanitize_line(label)}: {count} questions without an answer",
            )
        )
    text = (
        json.dumps(comparison.as_json(), ensure_ascii=False, indent=2) + "\n"
        if as_json
        else comparison.as_markdown()
    )
    return _deliver(text, output, [path for _, path in named])


def _label_and_path(result: str) -> tuple[str, Path]:
    label, equals, path = result.partition("=")
    if equals and label and not os.path.exists(result):  # noqa: PTH110  (pathlib raises for a long name)
        return label, user_path(path)
    return Path(result).stem, user_path(result)


def _deliver(text: str, output: str | None, sources: list[Path]) -> int:
    if output is None:
        return write_out(text)
    target = Path(os.path.realpath(user_path(output)))  # pathlib raises for a loop of links
    check_output_file(target, {str(source): source for source in sources})
    make_private(target.parent)
    try:
        write_whole_file(target, text, private=True)
    except OSError as error:
        what = say("无法写入对比表", "the comparison cannot be written")
        raise output_error(target, error, what) from error
    say_aside(medical_safety.ai_mark())
    return 0
