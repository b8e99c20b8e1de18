"""A whole command: `medchat answers` asks a model the questions of a file and keeps each answer as it comes."""

from pathlib import Path
from typing import Any

import click

from medchat import plugin_kit as kit

medchat_api_version = 1


@click.command(
    "answers",
    cls=kit.LocalizedCommand,
    help=kit.say(
        "逐条回答一个文件里的问题，中断后用 --resume 继续。",
        "Answer the questions of a file one by one; after an interruption --resume goes on.",
    ),
)
@click.option("--data", metavar="FILE", required=True, help=kit.say("问题文件", "the questions"))
@click.option("--output", metavar="FILE.jsonl", required=True, help=kit.say("结果文件", "where answers go"))
@click.option("--resume", is_flag=True, help=kit.say("继续未完成的", "go on with what is missing"))
@kit.model_flags
@kit.generation_flags
def answers(data: str, output: str, resume: bool, **flags: Any) -> int:
    """Answer the questions; return 6 where some record or some question got no answer."""
    file = kit.read_questions(Path(data))
    for bad in file.bad:
        click.echo(f"{kit.sanitize_line(data)}:{bad.line}: {kit.sanitize_line(bad.reason)}", err=True)
    failed = len(file.bad)
    inputs = {"--data": file.path}
    with kit.open_results(output, resume=resume, inputs=inputs) as results, kit.open_model(flags) as opened:
        for row in results.rows.values():
            opened.require_same(row, output)
        for row in opened.answer_rows(file.questions, done=results.done):
            results.append(row)
            if row["finish"] == "error":
                failed += 1
                click.echo(f"{row['index'] + 1}: {kit.sanitize_line(row['error'])}", err=True)
    spent = opened.spent
    cost = "" if spent.cost is None else f", {spent.cost:.6f} {spent.currency}"
    tokens = spent.prompt_tokens + spent.completion_tokens
    click.echo(kit.say(f"{tokens} 个词元{cost}", f"{tokens} tokens{cost}"), err=True)
    return kit.DataError.exit_code if failed else 0


@kit.hookimpl
def medchat_commands() -> list[click.Command]:
    return [answers]
