"""`medchat data build kg`: questions and answers from knowledge records, by the prompt forms or by a model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import chain, islice
from typing import Any

import click

from medchat.plugin_kit import (
    DataError,
    GenerationConfig,
    Group,
    LocalizedCommand,
    UsageError,
    sanitize,
    sanitize_line,
    say,
    user_path,
    write_out,
)
from medchat_data.build_literature import literature
from medchat_data.building import TEMPLATE_WRITER, BuildPlan
from medchat_data.flags import build_flags
from medchat_data.knowledge import read_knowledge
from medchat_data.model_writer import (
    BACKBONE_WRITER,
    REMOTE_WRITER,
    BuildFiles,
    planned,
)
from medchat_data.prompt_forms import FORMS
from medchat_data.sample_prompt import prompt_for
from medchat_data.writing_knowledge import summary, write_by_forms, write_by_model

#: `--dry-run` shows what so many knowledge records make.
_SHOWN_RECORDS = 3


@click.group(
    "build",
    cls=Group,
    help=say(
        "用知识或文献生成训练数据，每条记录都注明出处。",
        "Build training data from knowledge or literature, with the origin of each record.",
    ),
)
def build() -> None:
    """Hold the subcommands."""


@build.command(
    "kg",
    cls=LocalizedCommand,
    help=say(
        "把知识记录（中心词与关系、三元组或 CSV）写成问答。不合格的留在旁边的 .rejects.jsonl 里，注明原因。",
        "Write questions and answers from knowledge records (centre word and relations, triples, or CSV)."
        " What is rejected is kept beside in .rejects.jsonl with the reason.",
    ),
)
@click.argument("knowledge", metavar="FILE")
@click.option(
    "--writer",
    type=click.Choice([TEMPLATE_WRITER, REMOTE_WRITER, BACKBONE_WRITER]),
    default=TEMPLATE_WRITER,
    show_default=True,
    help=say(
        "由谁写：template 不用模型，不联网；remote 是远程接口；backbone 是本机的模型",
        "who writes: template uses no model and no network, remote an endpoint, backbone a model on this machine",
    ),
)
@click.option(
    "--forms",
    metavar="NAME,…",
    help=say("只用这些问法，逗号分隔：", "only these prompt forms, separated by commas: ")
    + say("、", ", ").join(FORMS),
)
@build_flags(
    dry_run=say(
        "只显示前三条知识记录写成什么（用模型写时显示提示和预计用量），不写文件",
        "show what the first three records make (for a model: the prompts, and what all would take); write nothing",
    ),
)
def kg(knowledge: str, writer: str, forms: str | None, **flags: Any) -> int:
    """Build; return 6 where some knowledge record says nothing, 1 where a model left some unwritten."""
    path, seed = user_path(knowledge), flags.get("seed") or 0
    GenerationConfig(seed=seed)  # raises for one out of range
    if writer == TEMPLATE_WRITER and (flags.get("backbone") or flags.get("model")):
        raise UsageError(
            say("--writer template 不用模型", "--writer template uses no model"),
            say("加上 --writer remote 或 --writer backbone", "add --writer remote or --writer backbone"),
        )
    plan = BuildPlan(read_knowledge(path), _chosen_forms(forms), seed, date.today().isoformat())
    if flags["dry_run"]:
        return write_out(_shown(plan) if writer == TEMPLATE_WRITER else _shown_prompts(plan, flags))
    files = BuildFiles.from_flags(flags, {say("知识文件", "the knowledge file"): path})
    if writer == TEMPLATE_WRITER:
        counts, is_whole = write_by_forms(plan, files), True
    else:
        counts, is_whole = write_by_model(plan, writer, flags, files)
    click.echo(summary(counts, files), err=True)
    if plan.knowledge.bad:
        return DataError.exit_code
    return 0 if is_whole else 1


build.add_command(literature)


def _chosen_forms(names: str | None) -> Sequence[str]:
    chosen = [name.strip() for name in (names or ",".join(FORMS)).split(",") if name.strip()]
    unknown = [name for name in chosen if name not in FORMS]
    if unknown or not chosen:
        raise UsageError(
            say(f"没有这种问法：{'、'.join(unknown)}", f"no such prompt form: {', '.join(unknown)}")
            if unknown
            else say("没有选择任何问法", "no prompt form is chosen"),
            "--forms " + ",".join(FORMS),
        )
    return [name for name in FORMS if name in chosen]


def _shown(plan: BuildPlan) -> str:
    """Return what the first knowledge records make, to be read."""
    lines = []
    of_records = (built for built in plan.rows() if built and built[0].form)
    for one in chain.from_iterable(islice(of_records, _SHOWN_RECORDS)):
        lines += [f"[{one.form}] {one.row['instruction'].strip()}", f"    {one.row['output']}"]
        if one.reason:
            lines.append("    " + say("不收录：", "rejected: ") + one.row["reason"])
    return "".join(f"{sanitize_line(line)}\n" for line in lines)


def _shown_prompts(plan: BuildPlan, flags: dict[str, Any]) -> str:
    """Return the prompts of the first knowledge records, and what all of them would take."""
    prompts = [[prompt_for(sample) for sample in samples] for samples in plan.samples()]
    shown = [sanitize(prompt) for prompt in chain.from_iterable(prompts[:_SHOWN_RECORDS])]
    return "\n\n".join([*shown, planned(list(chain.from_iterable(prompts)), flags)])
