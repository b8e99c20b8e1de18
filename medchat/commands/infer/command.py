"""`medchat infer`: a file of questions in, a file of answers out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from medchat.api import GenerationConfig
from medchat.batch.parts import look_at_outputs, open_outputs, part_paths
from medchat.batch.questions import QuestionFile, read_questions
from medchat.batch.resuming import check_belongs
from medchat.batch.setup import BatchSetup
from medchat.batch.work import WorkPlan
from medchat.chat.demo_mode import as_demo
from medchat.chat.setup import ChatSetup, read_settings, resolve_setup
from medchat.cli.model_command import ModelCommand
from medchat.cli.native_output import HeldNativeOutput
from medchat.cli.options import field_flags, generation_flags, model_flags
from medchat.cli.output import say_aside
from medchat.commands.infer.run import BatchRun
from medchat.datafiles.fields import FieldChoice
from medchat.errors import DataError, UsageError
from medchat.language import say
from medchat.launcher import Process
from medchat.paths import config_file, project_config_file
from medchat.sanitize import sanitize_line
from medchat.user_paths import user_path
from medchat.whole_file import check_output_file

#: The default batch size. On a CPU decoding is bound by reading the weights, so this many prompts cost little
#: more than one; running out of memory halves it.
BATCH_SIZE = 8
#: How many bad records or failed questions are named; of more only the number is given.
NAMED = 10


@click.command(
    cls=ModelCommand,
    help=say(
        "批量回答一个文件里的问题（JSON 数组、JSONL 或每行一问），结果为 JSONL。未另行指定时使用贪心解码。",
        "Answer a file of questions (JSON array, JSON lines, or one question a line); the results are JSON lines."
        " Greedy decoding unless told otherwise.",
    ),
)
@click.option("--data", metavar="FILE", required=True, help=say("问题文件", "the file with the questions"))
@click.option("--output", metavar="FILE.jsonl", required=True, help=say("结果文件", "where the answers go"))
@model_flags
@generation_flags
@click.option("--sample", is_flag=True, help=say("按概率采样", "sample tokens"))
@click.option(
    "--history",
    type=click.Choice(["all", "none"]),
    help=say("none：不发送问题之前的对话", "none: leave out what was said before a question"),
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    metavar="N",
    help=say(f"每批的问题数（默认 {BATCH_SIZE}）", f"questions in a batch (default {BATCH_SIZE})"),
)
@click.option(
    "--exact",
    is_flag=True,
    help=say(
        "逐个回答，使回答与其他问题无关（半精度下同批的问题会影响舍入）；更慢",
        "one question at a time: no answer depends on another question (in half precision a batch does); slower",
    ),
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help=say("只回答前 N 条", "answer only the first N")
)
@click.option(
    "--resume", is_flag=True, help=say("继续：只回答尚未回答的问题", "continue: answer only what is missing")
)
@click.option(
    "--overwrite",
    is_flag=True,
    help=say("丢弃已有的结果，重新开始", "discard earlier answers and start over"),
)
@click.option(
    "--check",
    is_flag=True,
    help=say("只检查数据、模型和设置，不回答", "check data, model and settings; no answers"),
)
@click.option(
    "--force-answer",
    is_flag=True,
    help=say(
        "演示模型没有学过的问题也照样生成回答（内容没有意义）",
        "let the demo model answer what it has not learned",
    ),
)
@click.option("--skip-bad", is_flag=True, help=say("跳过格式有误的记录", "skip malformed records"))
@field_flags
def command(data: str, output: str, **flags: Any) -> int:
    """Answer a file of questions."""
    _refuse_contradictions(flags)
    process = Process.from_environment(os.environ, slurm=True)
    opening, demo = as_demo(resolve_setup(read_settings(flags)))
    opening = replace(opening, generation=_generation(opening.generation, flags))
    setup = BatchSetup(opening, demo, force_answer=flags["force_answer"], exact=flags["exact"])
    choice = FieldChoice(flags["question_field"], flags["answer_field"], flags["context_field"])
    source = _read(user_path(data), choice, skip_bad=flags["skip_bad"], speak=process.leads)
    target = Path(os.path.realpath(user_path(output)))  # noqa: PTH  (pathlib raises for a loop of links)
    _refuse_inputs(target, opening, source.path)
    batch_size = 1 if flags["exact"] else _batch_size(opening, flags["batch_size"])
    plan = WorkPlan(source.questions[: flags["limit"]], batch_size, process.world_size)
    if flags["check"]:
        earlier = look_at_outputs(target, resume=flags["resume"], overwrite=flags["overwrite"])
        check_belongs(earlier, source.questions, setup.provenance, target)
        return _check(opening, len(plan.questions))
    outputs = open_outputs(target, process, resume=flags["resume"], overwrite=flags["overwrite"])
    try:
        run = BatchRun(
            setup,
            source,
            plan,
            outputs,
            Path(output),
            skip_bad=flags["skip_bad"],
            overwrites=flags["overwrite"],
        )
        check_belongs(outputs.earlier, source.questions, setup.provenance, target)
        with HeldNativeOutput():
            return run.complete()
    finally:
        outputs.close()


def _refuse_contradictions(flags: dict[str, Any]) -> None:
    """Raise UsageError for flags that exclude each other."""
    if flags["resume"] and flags["overwrite"]:
        raise UsageError(
            say("--resume 和 --overwrite 只能用一个", "use only one of --resume and --overwrite"),
            say(
                "用 --resume 继续，或用 --overwrite 重新开始",
                "continue with --resume, or start over with --overwrite",
            ),
        )
    if flags["exact"] and (flags["batch_size"] or 1) > 1:
        raise UsageError(
            say(
                "--exact 逐个回答，不能再指定 --batch-size",
                "--exact answers one at a time: --batch-size does not apply",
            ),
            say("两者只用一个", "use only one of them"),
        )


def _refuse_inputs(target: Path, opening: ChatSetup, data: Path) -> None:
    """Raise UsageError if an output file would overwrite an input of the run."""
    inputs = {"--data": data, "medchat config path": config_file(), "./medchat.toml": project_config_file()}
    if opening.options.model.is_file():
        inputs["--model"] = opening.options.model
    if template := opening.settings.value("template"):
        inputs["--template"] = Path(str(template))
    for path in (target, *part_paths(target).values()):
        check_output_file(path, inputs)


def _batch_size(opening: ChatSetup, asked: int | None) -> int:
    """Return the batch size. Raises UsageError if the backbone answers one question at a time."""
    if opening.backbone.capabilities.batch:
        return asked or BATCH_SIZE
    if (asked or 1) > 1:
        name = opening.backbone.name
        raise UsageError(
            say(
                f"{name} 逐个回答，不支持 --batch-size {asked}",
                f"{name} answers one at a time: no --batch-size {asked}",
            ),
            say("去掉 --batch-size", "leave --batch-size out"),
        )
    return 1


def _check(opening: ChatSetup, questions: int) -> int:
    """Let the backbone check the model without reading weights."""
    opening.backbone.check(opening.options)
    for notice in opening.notices():
        say_aside(notice)
    place = sanitize_line(opening.options.location, 200)
    say_aside(say(f"检查通过：{place}，{questions} 个问题", f"checked: {place}, {questions} questions"))
    return 0


def _generation(configured: GenerationConfig, flags: dict[str, Any]) -> GenerationConfig:
    """Greedy unless a flag of this command requests sampling: a chat's temperature in a file does not count."""
    if flags["sample"] and flags["greedy"]:
        raise UsageError(say("--sample 和 --greedy 只能用一个", "use only one of --sample and --greedy"))
    asked = any(flags[name] is not None for name in ("temperature", "top_p", "top_k"))
    return replace(configured, greedy=bool(flags["greedy"]) or not (flags["sample"] or asked))


def _read(path: Path, choice: FieldChoice, *, skip_bad: bool, speak: bool) -> QuestionFile:
    source = read_questions(path, choice)
    if speak:
        for bad in source.bad[:NAMED]:
            say_aside(f"{sanitize_line(str(path))}:{bad.line}: {sanitize_line(bad.reason)}")
    if source.bad and not skip_bad:
        raise DataError(
            say(f"{len(source.bad)} 条记录有误", f"{len(source.bad)} bad records")
            + say("：", ": ")
            + source.bad[0].reason,
            (source.bad[0].remedy or say("改正后再试", "correct them"))
            + say("；或用 --skip-bad 跳过", "; or leave them out with --skip-bad"),
            where=f"{path}:{source.bad[0].line}",
        )
    if not source.questions:
        raise DataError(say("没有一条可用的记录", "none of the records can be used"), where=str(path))
    if speak:
        skipped = (
            say(f"，跳过 {len(source.bad)} 条格式有误的记录", f", {len(source.bad)} bad records left out")
            if source.bad
            else ""
        )
        say_aside(
            say(
                f"{sanitize_line(path.name)}：{source.described}，{len(source.questions)} 个问题{skipped}",
                f"{sanitize_line(path.name)}: {source.described}, {len(source.questions)} questions{skipped}",
            )
        )
        for remark in source.fields.lines():
            say_aside(f"  {remark}")
        if further := sum(len(question.asked.wordings) for question in source.questions):
            say_aside(
                say(
                    f"  另有 {further} 种问法未使用，只问第一种",
                    f"  {further} more wordings are not asked, only the first",
                )
            )
    return source
