"""The flags that several subcommands of `medchat data` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from medchat.plugin_kit import FieldChoice, call_flags, generation_flags, model_flags, say

F = TypeVar("F", bound=Callable[..., Any])

#: Where records go that need not be written, and where they have to.
OUTPUT, REQUIRED_OUTPUT = (
    click.option(
        "--output",
        metavar="FILE",
        required=required,
        help=say("写到这个 .jsonl 文件", "where the data goes (.jsonl)"),
    )
    for required in (False, True)
)
OVERWRITE = click.option(
    "--overwrite", is_flag=True, help=say("替换已有的文件", "replace the file that is there")
)
JSON = click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
SEED = click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help=say("随机种子；相同则结果相同", "random seed: the same gives the same result"),
)


def field_choice(fields: Mapping[str, str]) -> FieldChoice:
    """Return the fields that the flags of `field_flags` name."""
    return FieldChoice(fields["question_field"], fields["answer_field"], fields["context_field"])


def build_flags(*, dry_run: str) -> Callable[[F], F]:
    """Return what adds the flags of a build: the model that writes, its calls and the files. `dry_run` is its help."""

    def decorate(command: F) -> F:
        for option in reversed(
            [
                OUTPUT,
                model_flags,
                generation_flags,
                call_flags,
                click.option(
                    "--resume",
                    is_flag=True,
                    help=say("从上次中断的地方继续", "go on with what is missing"),
                ),
                click.option(
                    "--overwrite",
                    is_flag=True,
                    help=say("重新写，替换已有的文件", "start over and replace the file"),
                ),
                click.option("--dry-run", is_flag=True, help=dry_run),
            ]
        ):
            command = option(command)
        return command

    return decorate
