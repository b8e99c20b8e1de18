"""`medchat infer`: a file of questions in, a file of answers out."""

from __future__ import annotations

import os
from typing import Any

import click

from medchat.cli.model_command import ModelCommand
from medchat.cli.options import field_flags, generation_flags, model_flags
from medchat.commands.infer.job import BATCH_SIZE, InferJob
from medchat.commands.infer.share import LOCAL
from medchat.errors import UsageError
from medchat.language import say
from medchat.launcher import Process


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
@click.option(
    "--ray",
    is_flag=False,
    flag_value=LOCAL,
    metavar="[ADDRESS]",
    help=say(
        "由 Ray 在多台机器上安排进程（需 medchat[ray]）：集群的地址和端口，auto 为本机所在的集群，不写则在本机启动",
        "let Ray place the processes (needs medchat[ray]): HOST:PORT of a cluster, auto for the one that this machine"
        " is part of; without a value Ray is started here",
    ),
)
@click.option(
    "--workers",
    type=click.IntRange(1, 4096),
    metavar="N",
    help=say(
        "--ray 的进程数（默认每块显卡一个，没有显卡时每台机器一个）",
        "processes under --ray (default: one for each GPU, without GPUs one for each machine)",
    ),
)
@field_flags
def command(data: str, output: str, ray: str | None, workers: int | None, **flags: Any) -> int:
    """Answer a file of questions."""
    _refuse_contradictions(flags)
    if workers is not None and ray is None:
        raise UsageError(
            say("--workers 只和 --ray 一起用", "--workers is for --ray"),
            say(
                "加上 --ray；或用 torchrun 启动多个进程",
                "add --ray, or start several processes with torchrun",
            ),
        )
    process = Process.from_environment(os.environ, slurm=True)
    if ray is not None:
        _refuse_two_launchers(process)
    job = InferJob.read(data, output, flags, process, speak=process.leads)
    if flags["check"]:
        return job.check()
    if ray is None:
        return job.answer()
    from medchat.commands.infer.ray_cluster import answer_on_cluster

    debug = bool(click.get_current_context().obj["debug"])
    return answer_on_cluster(job, data, address=ray, workers=workers, debug=debug)


def _refuse_two_launchers(process: Process) -> None:
    if not process.alone:
        raise UsageError(
            say(
                "--ray 自己启动各个进程，不能再由 torchrun 或 srun 启动",
                "--ray starts the processes itself: it does not go with torchrun or srun",
            ),
            say("两者只用一个", "use only one of them"),
        )


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
