"""`medchat data convert`: training data in another form, every record proven to say the same."""

from __future__ import annotations

import click

from medchat.plugin_kit import (
    DataError,
    LocalizedCommand,
    RecordError,
    field_flags,
    read_questions,
    sanitize_line,
    say,
    user_path,
)
from medchat_data.converting import WRITERS, Written, converted
from medchat_data.flags import OVERWRITE, REQUIRED_OUTPUT, field_choice
from medchat_data.record_files import bad_record, require_free, write_records


@click.command(
    "convert",
    cls=LocalizedCommand,
    help=say(
        "把训练数据换成另一种格式。新格式放不下的内容（如多轮、系统提示）会报错并注明是哪一条，不会悄悄丢掉。",
        "Put training data into another form. What the form cannot hold (turns, a system text) is an error that"
        " names the record, never a silent loss.",
    ),
)
@click.argument("data", metavar="FILE")
@click.option(
    "--to", "form", type=click.Choice(list(WRITERS)), required=True, help=say("目标格式", "the form")
)
@REQUIRED_OUTPUT
@field_flags
@OVERWRITE
def convert(data: str, form: str, output: str, overwrite: bool, **fields: str) -> int:
    """Convert the file; nothing is written where one record cannot be."""
    path, target = user_path(data), user_path(output)
    require_free(target, inputs=[path], overwrite=overwrite)
    file = read_questions(path, field_choice(fields))
    for bad in file.bad:
        raise bad_record(path, bad.line, bad.reason, bad.remedy)
    records: list[Written] = []
    for question in file.questions:
        try:
            records.append(converted(question.asked, form))
        except RecordError as error:
            where = f"{path}:{question.line}" + say(
                f"（第 {question.index + 1} 条）", f" (record {question.index + 1})"
            )
            raise DataError(str(error), error.remedy, where=where) from None
    write_records(target, records)
    count, shown = len(records), sanitize_line(str(target))
    click.echo(say(f"{count} 条（{form}）：{shown}", f"{count} records ({form}): {shown}"), err=True)
    return 0
