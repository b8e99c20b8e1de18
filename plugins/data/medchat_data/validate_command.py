"""`medchat data validate`: whether training data can be read, and which of its records are bad."""

from __future__ import annotations

from pathlib import Path

import click

from medchat.plugin_kit import (
    DataError,
    FieldChoice,
    LocalizedCommand,
    field_flags,
    read_training_data,
    sanitize_line,
    say,
    user_path,
    write_out,
)
from medchat_data.flags import field_choice

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
    sound = [_is_sound(user_path(name), field_choice(fields)) for name in data]
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
