"""`medchat compare`: the answers of several runs of `medchat infer`, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from medchat import medical_safety
from medchat.batch.comparison import Comparison, read_column
from medchat.chat.model_choice import open_registry
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.disk import output_error
from medchat.document import as_html, as_markdown
from medchat.errors import PluginError, UsageError
from medchat.hookspecs import AnswerScores, ReferencedAnswer
from medchat.language import say
from medchat.paths import make_private
from medchat.registry.contract import ContractError, require
from medchat.registry.metadata import COMMANDS
from medchat.registry.plugin import LoadedPlugin, guarded
from medchat.sanitize import sanitize_line
from medchat.settings.layered import Settings
from medchat.user_paths import user_path
from medchat.whole_file import check_output_file, write_whole_file

#: The command whose plugin scores answers, and the hook that it is asked by.
_SCORER, _HOOK = "eval", "medchat_score_answers"


@click.command(
    cls=LocalizedCommand,
    help=say(
        "把几个 medchat infer 结果文件并排成一张表（Markdown，或 --json）；记录带参考答案时，每个回答旁边有得分。"
        "每个文件前可以写上列名：列名=文件。",
        "Put result files of medchat infer side by side in a table (Markdown, or --json), each answer with its score"
        " where the records have the right ones. A file may be given a heading: LABEL=FILE.",
    ),
)
@click.argument("results", metavar="[LABEL=]FILE…", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
@click.option(
    "--output",
    metavar="FILE",
    help=say(
        "写到这个文件；后缀 .html、.json 决定格式，其他为 Markdown",
        "write to this file; the suffix .html or .json decides the form, else Markdown",
    ),
)
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
    comparison = _scored(comparison)
    if output is None:
        return write_out(_as_text(comparison, ".json" if as_json else ""))
    target = Path(os.path.realpath(user_path(output)))  # pathlib raises for a loop of links
    text = _as_text(comparison, ".json" if as_json else target.suffix.lower())
    return _write(text, target, [path for _, path in named])


def _scored(comparison: Comparison) -> Comparison:
    """Return the comparison with the scores that the plugin of `medchat eval` gives; as it is without them."""
    if not comparison.referenced:
        return comparison
    try:
        plugin = open_registry(Settings.load()).plugin(COMMANDS, _SCORER)
        if _HOOK not in plugin.hooks:
            return comparison
        return comparison.scored(lambda answers: _scores(plugin, answers))
    except UsageError:
        return comparison
    except PluginError as error:
        say_aside(say("没有得分：", "no scores: ") + error.what)
        return comparison


def _scores(plugin: LoadedPlugin, answers: Sequence[ReferencedAnswer]) -> AnswerScores:
    with guarded(plugin.entry, _HOOK):
        (found,) = plugin.call(_HOOK, {"answers": answers}) or [AnswerScores([None] * len(answers), {})]
        scores: AnswerScores = require(found, AnswerScores)
        if len(scores.scores) != len(answers):
            raise ContractError(
                say(
                    f"{len(answers)} 个回答，却有 {len(scores.scores)} 个得分",
                    f"{len(scores.scores)} scores for {len(answers)} answers",
                )
            )
        return scores


def _as_text(comparison: Comparison, suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(comparison.as_json(), ensure_ascii=False, indent=2) + "\n"
    page = comparison.as_page()
    return as_html(page) if suffix in (".html", ".htm") else as_markdown(page)


def _label_and_path(result: str) -> tuple[str, Path]:
    label, equals, path = result.partition("=")
    if equals and label and not os.path.exists(result):  # noqa: PTH110  (pathlib raises for a long name)
        return label, user_path(path)
    return Path(result).stem, user_path(result)


def _write(text: str, target: Path, sources: list[Path]) -> int:
    check_output_file(target, {str(source): source for source in sources})
    make_private(target.parent)
    try:
        write_whole_file(target, text, private=True)
    except OSError as error:
        what = say("无法写入对比表", "the comparison cannot be written")
        raise output_error(target, error, what) from error
    say_aside(medical_safety.ai_mark())
    return 0
