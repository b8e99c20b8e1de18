"""`medchat data validate` and `medchat data stats`: whether training data can be read, and what it is like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import (
    DataError,
    FieldChoice,
    LocalizedCommand,
    field_flags,
    read_questions,
    read_training_data,
    sanitize_line,
    say,
    user_path,
    write_out,
)
from medchat_data.flags import JSON
from medchat_data.measuring import SHORT_ANSWER, Exchange, Lengths, Measures, measure
from medchat_data.record_files import bad_record

#: So many bad records of a file are named; of more only the number is given.
_NAMED = 20


@click.command(
    "validate",
    cls=LocalizedCommand,
    help=say(
        "检查训练数据：medchat sft 能读的各种格式都能查，每条有误的记录注明文件和行号。",
        "Check training data in every form that medchat sft reads; each bad record is named with file and line.",
    ),
)
@click.argument("data", metavar="FILE…", nargs=-1, required=True)
@field_flags
def validate(data: tuple[str, ...], **fields: str) -> int:
    """Check the files; return 6 where one of them holds a bad record or none at all."""
    sound = [_is_sound(user_path(name), _choice(fields)) for name in data]
    return 0 if all(sound) else DataError.exit_code


def _is_sound(path: Path, choice: FieldChoice) -> bool:
    """Say on stdout what the file is, and which of its records are bad."""
    shown = sanitize_line(str(path))
    try:
        file = read_training_data(path, skip_bad=True, choice=choice)
    except DataError as error:
        remedy = say("；", "; ") + error.remedy if error.remedy else ""
        write_out(sanitize_line(f"{error.where or path}{say('：', ': ')}{error.what}{remedy}", 600) + "\n")
        return False
    for bad in file.bad[:_NAMED]:
        remedy = say("；", "; ") + bad.remedy if bad.remedy else ""
        write_out(sanitize_line(f"{bad.where}{say('：', ': ')}{bad.reason}{remedy}", 600) + "\n")
    if len(file.bad) > _NAMED:
        more = len(file.bad) - _NAMED
        write_out(say(f"{shown}：还有 {more} 条有误", f"{shown}: {more} more are bad") + "\n")
    write_out(
        say(
            f"{shown}：{file.described}，{file.records} 条可用，{len(file.bad)} 条有误",
            f"{shown}: {file.described}, {file.records} good, {len(file.bad)} bad",
        )
        + "\n"
    )
    for remark in file.remarks():
        click.echo(f"  {remark}", err=True)
    return not file.bad


@click.command(
    "stats",
    cls=LocalizedCommand,
    help=say(
        "统计训练数据：条数、长度、轮数、重复，以及会教坏模型的迹象（一味附和、指代不明、剂量）。",
        "Count training data: records, lengths, turns, repeated questions, and what spoils a model"
        " (answers that agree, dangling pronouns, doses).",
    ),
)
@click.argument("data", metavar="FILE…", nargs=-1, required=True)
@field_flags
@JSON
def stats(data: tuple[str, ...], as_json: bool, **fields: str) -> int:
    """Print the counts of each file; return 6 where one of them holds a bad record."""
    found = [_measured(user_path(name), _choice(fields)) for name in data]
    if as_json:
        listed = [{"file": str(path), "bad": bad, **counts.as_json()} for path, bad, counts in found]
        write_out(json.dumps(listed, ensure_ascii=False, indent=2) + "\n")
    else:
        write_out("\n".join("".join(f"{line}\n" for line in _lines(*one)) for one in found))
    return DataError.exit_code if any(bad for _, bad, _ in found) else 0


def _choice(fields: dict[str, str]) -> FieldChoice:
    return FieldChoice(fields["question_field"], fields["answer_field"], fields["context_field"])


def _measured(path: Path, choice: FieldChoice) -> tuple[Path, int, Measures]:
    """Return the path, how many records are bad, and the counts of the others. Raises DataError where there is none."""
    file = read_questions(path, choice)
    if not file.questions:
        bad = file.bad[0]
        raise bad_record(path, bad.line, bad.reason, bad.remedy)
    return path, len(file.bad), measure(_exchange(question.asked) for question in file.questions)


def _exchange(asked: Any) -> Exchange:
    """Return a record as it is learned: every answer of a conversation, the last one of anything else."""
    questions = [turn.question for turn in asked.turns if turn.question] + [asked.last]
    answers = [turn.answer for turn in asked.turns] if asked.is_conversation else []
    if isinstance(asked.reference, str) and asked.reference.strip():
        answers.append(asked.reference)
    source = "" if asked.id is None else str(asked.id)
    return Exchange(tuple(questions), tuple(answers), asked.input, source, asked.form)


def _lines(path: Path, bad: int, counts: Measures) -> Iterator[str]:
    """Yield what is shown of one file."""
    forms = say("、", ", ").join(f"{form} {count}" for form, count in counts.forms.items())
    turns = say("、", ", ").join(f"{turns} × {count}" for turns, count in counts.turns.items())
    yield sanitize_line(str(path))
    for name, value in (
        (say("记录", "records"), f"{counts.records} ({forms})" if forms else str(counts.records)),
        (say("有误的记录", "bad records"), bad),
        (say("轮数 × 记录", "turns × records"), turns),
        (say("问题字数", "characters of a question"), _shown(counts.question_characters)),
        (say("回答字数", "characters of an answer"), _shown(counts.answer_characters)),
        (say("input 为空", "input empty"), counts.without_input),
        (say("没有回答", "without an answer"), counts.without_answer),
        (say("重复的问题", "repeated questions"), counts.repeated_questions),
        (say("有 id（不同的）", "with id (different ones)"), f"{counts.with_id} ({counts.sources})"),
        (
            say(f"不足 {SHORT_ANSWER} 字的回答", f"answers under {SHORT_ANSWER} characters"),
            _share(counts.short_answers, counts.answers),
        ),
        (
            say("一开口就附和的回答", "answers that begin by agreeing"),
            _share(counts.agreeing, counts.answers),
        ),
        (
            say("以“这、该、他”等开头的问题", "questions with a dangling pronoun"),
            _share(counts.dangling, counts.records),
        ),
        (say("含剂量的回答", "answers with a dose"), _share(counts.doses, counts.answers)),
    ):
        yield f"  {name}{say('：', ': ')}{value}"


def _shown(lengths: Lengths) -> str:
    return say(
        f"中位数 {lengths.median:g}，九成不超过 {lengths.p90}，最长 {lengths.longest}",
        f"median {lengths.median:g}, nine of ten up to {lengths.p90}, longest {lengths.longest}",
    )


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.1%})" if of else str(count)
