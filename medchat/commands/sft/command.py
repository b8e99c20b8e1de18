"""`medchat sft`: fine-tune a model on a file of questions and answers."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from medchat import launcher, medical_safety
from medchat.chat.session_choice import disclaimer_lines, open_store
from medchat.cli.confirm import confirmed
from medchat.cli.output import aligned, answer_stream, say_aside, write_out
from medchat.commands.sft.evaluation import RunEvaluation
from medchat.commands.sft.options import RunCommand, run_flags
from medchat.commands.sft.plan import make_plan
from medchat.commands.sft.prepare import PreparedRun, prepare_run
from medchat.commands.sft.run import next_command, run_training, summary_lines, tell
from medchat.commands.sft.screen import show_overview
from medchat.errors import MedchatError, MemoryShortageError
from medchat.language import say
from medchat.launcher import Process
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.sft_job.card import PAGE, write_report
from medchat.sft_job.facts import read_facts

#: An estimate may be wrong by 15 % (docs/specs/training.md, "Memory"): above this share of the free memory
#: the user is asked.
TIGHT = 0.85


@click.command(
    cls=RunCommand,
    help=say(
        "用问答数据微调模型。每个选项也可以写进 --config 的 TOML 文件；--dry-run 只检查，不训练。",
        "Fine-tune a model on questions and answers. Every option can stand in the TOML file of --config too;"
        " --dry-run shows what would happen and trains nothing.",
    ),
)
@run_flags
@click.option("--config", metavar="FILE.toml", help=say("从文件读取设置", "read settings from a file"))
@click.option(
    "--resume",
    is_flag=True,
    help=say("从 --output 里的检查点继续训练", "go on from the checkpoint in --output"),
)
@click.option(
    "--dry-run", is_flag=True, help=say("只检查数据和内存，不加载权重", "check data and memory, load nothing")
)
@click.option("--yes", is_flag=True, help=say("不询问，直接开始", "start without asking"))
@click.option("--offline", is_flag=True, default=None, help=say("不使用网络", "never use the network"))
@click.option(
    "--report",
    is_flag=True,
    help=say(
        "只为 --output 里未完成的训练生成报告", "only write the report of the unfinished run in --output"
    ),
)
@click.option(
    "--eval",
    "eval_task",
    metavar="TASK",
    help=say(
        "训练前后各评测一次：choice（附带的选择题）或 choice=题目文件",
        "evaluate before and after training: choice (the questions that are shipped) or choice=FILE",
    ),
)
@click.option("--json", "as_json", is_flag=True, help=say("结果输出为 JSON", "print the result as JSON"))
def command(**flags: Any) -> int:
    """Show the overview, then train."""
    process = Process.from_environment(os.environ)
    if flags["report"]:
        return _report(Path(flags["output"] or "."))
    eval_task = flags.pop("eval_task")
    try:
        prepared = prepare_run(make_plan(flags, process))
        evaluation = RunEvaluation(prepared, eval_task) if eval_task else None
        if not flags["dry_run"]:
            _show(prepared)
            prepared.refuse_what_cannot_fit()
    except MedchatError as error:
        # Every process of a launcher would report the same: one per machine does.
        if process.leads or launcher.local_rank() == 0:
            raise
        return error.exit_code
    if flags["dry_run"]:
        return _dry_run(prepared, as_json=flags["as_json"]) if process.leads else 0
    if process.alone and not flags["yes"] and not _is_confirmed(prepared):
        say_aside(say("没有开始训练", "not started"))
        return 0
    _keep_trackers_offline(prepared)
    if evaluation is not None:
        evaluation.before()
    code, report = run_training(prepared)
    if report is None or not process.leads:
        return code
    tell(summary_lines(prepared, report))
    if evaluation is not None:
        tell(iter(aligned(evaluation.after(report))))
    if flags["as_json"]:
        told = {**dataclasses.asdict(report), "disclaimer": medical_safety.ai_mark()}
        told["AIGC"] = medical_safety.aigc_metadata(json.dumps(told, default=str))
        return write_out(json.dumps(told, ensure_ascii=False, default=str) + "\n")
    return write_out(next_command(prepared, report) + "\n")


def _report(output: Path) -> int:
    """Write what is known so far; a finished run has its report, which its manifest lists."""
    facts, report = read_facts(output)
    if report is None:
        write_report(output, facts, None)
    return write_out(sanitize_line(str(output / PAGE)) + "\n")


def _show(prepared: PreparedRun) -> None:
    if not prepared.plan.process.leads:
        return
    store = open_store(save=bool(Settings.load().value("save")), warn=say_aside)
    try:
        for line in disclaimer_lines(store):
            say_aside(line)
    finally:
        store.close()
    _say_of_plugins(prepared)
    show_overview(prepared, sys.stderr, say_aside)


def _say_of_plugins(prepared: PreparedRun) -> None:
    for line in prepared.plan.registry.lines():
        say_aside(line)


def _dry_run(prepared: PreparedRun, *, as_json: bool) -> int:
    _say_of_plugins(prepared)
    if as_json:
        write_out(json.dumps(prepared.as_json(), ensure_ascii=False, indent=2, default=str) + "\n")
    else:
        show_overview(prepared, answer_stream(), lambda line: write_out(line + "\n"))
    if prepared.memory is not None and not prepared.memory.fits:
        return MemoryShortageError.exit_code
    if prepared.disk is not None and not prepared.disk.fits:
        return MedchatError.exit_code
    return 0


def _is_confirmed(prepared: PreparedRun) -> bool:
    """Ask the user if memory is tight; without a terminal nobody is asked."""
    memory = prepared.memory
    if memory is None or memory.total <= TIGHT * memory.available:
        return True
    say_aside(
        say(
            "内存刚好够：估计可能有 15% 的误差",
            "the memory is only just enough: the estimate may be wrong by 15 %",
        )
    )
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    return confirmed(say("开始训练？", "Start?"), default=True)


def _keep_trackers_offline(prepared: PreparedRun) -> None:
    """With `--offline` the trackers write to local files only, unless their own variables say otherwise."""
    if prepared.plan.offline:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("SWANLAB_MODE", "offline")
