"""`medchat data build kg`: questions and answers from knowledge records, written by the prompt forms alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import (
    DataError,
    Group,
    LocalizedCommand,
    UsageError,
    open_results,
    sanitize_line,
    say,
    user_path,
    write_out,
)
from medchat_data.building import TEMPLATE_WRITER, BuildPlan
from medchat_data.knowledge import read_knowledge
from medchat_data.prompt_forms import FORMS

#: `--dry-run` shows what so many knowledge records make.
_SHOWN_RECORDS = 3
#: So many rows go to the disk together. They cost nothing to make anew, and waiting for the disk takes longer.
_ROWS_AT_ONCE = 200


@click.group(
    "build",
    cls=Group,
    help=say(
        "用知识生成训练数据，每条记录都注明出处。",
        "Build training data from knowledge, with the origin of each record.",
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
    "--output",
    metavar="FILE",
    help=say("训练数据写到这个 .jsonl 文件", "where the training data goes (.jsonl)"),
)
@click.option(
    "--writer",
    type=click.Choice([TEMPLATE_WRITER]),
    default=TEMPLATE_WRITER,
    show_default=True,
    help=say("由谁写：template 不用模型，不联网", "who writes: template uses no model and no network"),
)
@click.option(
    "--forms",
    metavar="NAME,…",
    help=say("只用这些问法，逗号分隔：", "only these prompt forms, separated by commas: ")
    + say("、", ", ").join(FORMS),
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help=say("决定措辞和搭配；相同则结果相同", "decides wordings and pairings; the same gives the same data"),
)
@click.option("--resume", is_flag=True, help=say("从上次中断的地方继续", "go on with what is missing"))
@click.option(
    "--overwrite", is_flag=True, help=say("重新写，替换已有的文件", "start over and replace the file")
)
@click.option(
    "--dry-run",
    is_flag=True,
    help=say(
        "只显示前三条知识记录写成什么，不写文件", "show what the first three records make; write nothing"
    ),
)
def kg(
    knowledge: str,
    output: str | None,
    writer: str,
    forms: str | None,
    seed: int,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
) -> int:
    """Build; return 6 where some knowledge record says nothing."""
    path = user_path(knowledge)
    plan = BuildPlan(read_knowledge(path), _chosen_forms(forms), seed, date.today().isoformat())
    if dry_run:
        return write_out(_shown(plan))
    if output is None:
        raise UsageError(
            say("没有指定 --output", "--output is missing"),
            say(
                "--output train.jsonl；先看看用 --dry-run", "--output train.jsonl; --dry-run shows some first"
            ),
        )
    target = user_path(output)
    rejects = target.with_name(f"{target.stem}.rejects.jsonl")
    counts = _write(plan, target, rejects, resume=resume, overwrite=overwrite)
    click.echo(_summary(counts, target, rejects), err=True)
    return DataError.exit_code if plan.knowledge.bad else 0


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


def _write(
    plan: BuildPlan, target: Path, rejects: Path, *, resume: bool, overwrite: bool
) -> Counter[tuple[str, str]]:
    """Write both files; return how many rows there are by form and reason ("" for what was kept)."""
    inputs = {say("知识文件", "the knowledge file"): plan.knowledge.path}
    counts: Counter[tuple[str, str]] = Counter()
    with ExitStack() as stack:
        kept, rejected = (
            stack.enter_context(open_results(path, resume=resume, overwrite=overwrite, inputs=inputs))
            for path in (target, rejects)
        )
        earlier = {**kept.rows, **rejected.rows}
        plan = _as_begun(plan, earlier, target)
        all_rows = chain.from_iterable(plan.rows())
        while built := list(islice(all_rows, _ROWS_AT_ONCE)):
            counts.update((one.form, one.reason) for one in built)
            new = [one for one in built if one.row["index"] not in earlier]
            kept.extend([one.row for one in new if not one.reason])
            rejected.extend([one.row for one in new if one.reason])
    return counts


def _as_begun(plan: BuildPlan, earlier: Mapping[int, Mapping[str, Any]], target: Path) -> BuildPlan:
    """Return the plan with the date of the run that it goes on with. Raises UsageError where that was another plan."""
    if not earlier:
        return plan
    begun = (
        row["provenance"].get("date") for row in earlier.values() if isinstance(row.get("provenance"), dict)
    )
    plan = replace(plan, date=str(next(begun, plan.date)))
    expected = {one.row["index"]: _comparable(one.row) for built in plan.rows() for one in built}
    for index, row in earlier.items():
        if expected.get(index) != _comparable(row):
            raise UsageError(
                say(
                    f"已有的记录（index {index}）不是用这份知识和这些选项写的",
                    f"the record with index {index} there was not built from this knowledge with these options",
                ),
                say(
                    "用原来的知识文件、--forms 和 --seed 继续；或换一个 --output；或用 --overwrite 重新开始",
                    "continue with the same knowledge, --forms and --seed; use another --output; or start over with"
                    " --overwrite",
                ),
                where=str(target),
            )
    return plan


def _comparable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what of a row is the same in either interface language."""
    return {name: value for name, value in row.items() if name != "reason"}


def _shown(plan: BuildPlan) -> str:
    """Return what the first knowledge records make, to be read."""
    lines = []
    of_records = (built for built in plan.rows() if built and built[0].form)
    for one in chain.from_iterable(islice(of_records, _SHOWN_RECORDS)):
        lines += [f"[{one.form}] {one.row['instruction'].strip()}", f"    {one.row['output']}"]
        if one.reason:
            lines.append("    " + say("不收录：", "rejected: ") + one.row["reason"])
    return "".join(f"{sanitize_line(line)}\n" for line in lines)


def _summary(counts: Counter[tuple[str, str]], target: Path, rejects: Path) -> str:
    def of(which: bool, part: int) -> tuple[int, str]:
        found: Counter[str] = Counter()
        for key, count in counts.items():
            if bool(key[1]) is which:
                found[key[part]] += count
        return found.total(), say("、", ", ").join(f"{name} {count}" for name, count in found.items())

    built, by_form = of(False, 0)
    refused, by_reason = of(True, 1)
    text = say(
        f"共 {built} 条训练数据（{by_form}）：{sanitize_line(str(target))}",
        f"{built} training records ({by_form}): {sanitize_line(str(target))}",
    )
    if refused:
        text += "\n" + say(
            f"不收录 {refused} 条（{by_reason}）：{sanitize_line(str(rejects))}",
            f"{refused} rejected ({by_reason}): {sanitize_line(str(rejects))}",
        )
    return text
