"""`medchat data stats`: what training data is like, on the screen, as JSON and as a page with pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import (
    DataError,
    LocalizedCommand,
    Question,
    as_html,
    field_flags,
    model_flags,
    read_questions,
    sanitize_line,
    say,
    sha256_of,
    user_path,
    write_out,
)
from medchat_data.contaminating import contaminated
from medchat_data.deduplicating import question_of
from medchat_data.flags import JSON, OVERWRITE, field_choice
from medchat_data.measuring import Exchange, measure
from medchat_data.record_files import bad_record, require_free, write_output
from medchat_data.stats_report import FileStats, KnownTest, stats_document, stats_rows
from medchat_data.token_lengths import named_vocabulary

#: What `--json` prints: the name of the form, and its version, which rises where a field changes its meaning.
SCHEMA, VERSION = "medchat-data-stats", 1


@click.command(
    "stats",
    cls=LocalizedCommand,
    help=say(
        "统计训练数据：条数、长度、轮数、重复，以及会教坏模型的迹象（一味附和、指代不明、剂量）。"
        "指定模型时还统计词元数，以及训练时会截断多少。",
        "Count training data: records, lengths, turns, repeated questions, and what spoils a model"
        " (answers that agree, dangling pronouns, doses). With a model also lengths in tokens, and what training"
        " would cut.",
    ),
)
@click.argument("data", metavar="FILE…", nargs=-1, required=True)
@field_flags
@click.option(
    "--against",
    metavar="FILE",
    multiple=True,
    help=say(
        "数一数评测的题目有多少在数据里，可重复",
        "count the questions of a test that stand in the data, repeatable",
    ),
)
@click.option(
    "--max-length",
    type=click.IntRange(8, 1 << 20),
    metavar="N",
    help=say(
        "训练时单条数据的最大词元数（默认与 medchat sft 相同）",
        "the longest record of training in tokens (default: that of medchat sft)",
    ),
)
@model_flags
@click.option(
    "--output",
    metavar="FILE",
    help=say("带图的网页写到这个 .html 文件", "where a page with pictures goes (.html)"),
)
@OVERWRITE
@JSON
def stats(
    data: tuple[str, ...], against: tuple[str, ...], max_length: int | None, output: str | None, **flags: Any
) -> int:
    """Print the counts of each file; return 6 where one of them holds a bad record."""
    paths, tests = [user_path(name) for name in data], [user_path(name) for name in against]
    page = None if output is None else user_path(output)
    if page is not None:
        require_free(page, inputs=[*paths, *tests], overwrite=flags["overwrite"])
    found = [_measured(path, tests, max_length, flags) for path in paths]
    if page is not None:
        write_output(page, as_html(stats_document(found)).encode())
        shown = sanitize_line(str(page))
        click.echo(say(f"网页：{shown}", f"page: {shown}"), err=True)
    if flags["as_json"]:
        listed = {"schema": SCHEMA, "version": VERSION, "files": [one.as_json() for one in found]}
        write_out(json.dumps(listed, ensure_ascii=False, indent=2) + "\n")
    else:
        write_out("\n".join(map(_shown, found)))
    return DataError.exit_code if any(one.bad for one in found) else 0


def _measured(path: Path, tests: Sequence[Path], max_length: int | None, flags: dict[str, Any]) -> FileStats:
    """Return the counts of a file. Raises DataError where it holds no good record."""
    choice = field_choice(flags)
    file = read_questions(path, choice)
    if not file.questions:
        bad = file.bad[0]
        raise bad_record(path, bad.line, bad.reason, bad.remedy)
    vocabulary = named_vocabulary(flags, max_length)
    return FileStats(
        path=path,
        sha256=sha256_of(path),
        bad=len(file.bad),
        counts=measure(_exchange(question.asked) for question in file.questions),
        tokens=vocabulary.measure(path, choice) if vocabulary else None,
        against=tuple(_known(test, file.questions) for test in tests),
    )


def _known(test: Path, training: Sequence[Question]) -> KnownTest:
    """Return how many questions of a test stand in the records. Raises UsageError without datasketch."""
    questions = [question_of(question.asked) for question in read_questions(test).questions]
    found = contaminated([question.asked for question in training], questions)
    return KnownTest(test, len(questions), Counter(one.kind for one in found))


def _exchange(asked: Any) -> Exchange:
    """Return a record as it is learned: every answer of a conversation, the last one of anything else."""
    questions = [turn.question for turn in asked.turns if turn.question] + [asked.last]
    answers = [turn.answer for turn in asked.turns] if asked.is_conversation else []
    if isinstance(asked.reference, str) and asked.reference.strip():
        answers.append(asked.reference)
    source = "" if asked.id is None else str(asked.id)
    return Exchange(tuple(questions), tuple(answers), asked.input, source, asked.form)


def _shown(found: FileStats) -> str:
    rows = "".join(f"  {name}{say('：', ': ')}{value}\n" for name, value in stats_rows(found))
    return f"{sanitize_line(str(found.path))}\n{rows}"
