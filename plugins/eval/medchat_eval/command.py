"""`medchat eval`: the group that holds the subcommands, and the questions that are shipped."""

from __future__ import annotations

from importlib.resources import files

import click

from medchat.plugin_kit import Group, LocalizedCommand, say, write_out
from medchat_eval.choice_command import CHOICE_FILE, choice
from medchat_eval.compare_command import compare_runs
from medchat_eval.emergency_command import EMERGENCY_FILE, emergency
from medchat_eval.harness_command import lm_eval_task
from medchat_eval.judge_command import judge
from medchat_eval.text_command import OPEN_FILE, text

SAMPLES = {"choice": CHOICE_FILE, "open": OPEN_FILE, "emergency": EMERGENCY_FILE}


@click.group(
    "eval",
    cls=Group,
    help=say("评测：模型知道什么、怎样回答。", "Evaluation: what a model knows and how it answers."),
)
def evaluate() -> None:
    """Hold the subcommands."""


@evaluate.command(
    "sample",
    cls=LocalizedCommand,
    help=say(
        "把随程序附带的题目写到标准输出，供试用和参照。",
        "Write questions that are shipped to stdout, to try out and to go by.",
    ),
)
@click.argument("name", type=click.Choice(list(SAMPLES)))
def shipped_questions(name: str) -> int:
    """Write the questions as they are."""
    return write_out(files("medchat_eval").joinpath(SAMPLES[name]).read_text(encoding="utf-8"))


for subcommand in (choice, text, emergency, judge, lm_eval_task, compare_runs):
    evaluate.add_command(subcommand)
