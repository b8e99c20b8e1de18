"""The flags that all evaluations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

import click

from medchat.plugin_kit import say, user_path
from medchat_eval.output_folder import OutputFolder
from medchat_eval.results import parse_gates

F = TypeVar("F", bound=Callable[..., Any])
#: Who sets one of these wants answers drawn at random, or by beams.
_DRAWING = ("temperature", "top_p", "top_k", "num_beams", "seed", "greedy")


def output_flags(metrics: Sequence[str]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return what adds the flags for the folder of the results and the gates for `metrics`.

    The command gets them as one argument `output`, an OutputFolder; a gate that is none is a UsageError before that.
    """
    options = _output_options(", ".join(metrics))

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def with_folder(
            *, output: str, resume: bool, overwrite: bool, gates: Sequence[str], **rest: Any
        ) -> int:
            least = parse_gates(gates, metrics)
            return command(output=OutputFolder(user_path(output), resume, overwrite, least), **rest)

        gathered: Callable[..., int] = with_folder
        for option in reversed(options):
            gathered = option(gathered)
        return gathered

    return decorate


def _output_options(known: str) -> list[Callable[[Callable[..., int]], Callable[..., int]]]:
    """Return what adds each flag; `known` names the metrics for a gate."""
    return [
        click.option(
            "--output",
            metavar="DIR",
            required=True,
            help=say("结果写到这个目录", "the folder for the results"),
        ),
        click.option(
            "--resume", is_flag=True, help=say("从上次中断的地方继续", "go on with what is missing")
        ),
        click.option(
            "--overwrite", is_flag=True, help=say("替换里面已有的评测", "replace the evaluation in it")
        ),
        click.option(
            "--min",
            "gates",
            metavar="METRIC=VALUE",
            multiple=True,
            help=say(
                f"低于这个值时退出码为 7，可重复：{known}",
                f"exit code 7 below this value, repeatable: {known}",
            ),
        ),
    ]


def limit_flag(command: F) -> F:
    """Add `--limit`: how many questions are asked, None for all."""
    return click.option(
        "--limit", type=click.IntRange(1), metavar="N", help=say("只做前 N 题", "the first N questions alone")
    )(command)


def decisive(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags with greedy decoding where nobody chose otherwise: an evaluation can be repeated."""
    chosen = any(flags.get(name) is not None for name in _DRAWING)
    return dict(flags) if chosen else {**flags, "greedy": True}
