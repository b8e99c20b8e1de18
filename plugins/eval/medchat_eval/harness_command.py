"""`medchat eval lm-eval`: a published task of lm-evaluation-harness, unchanged, on any backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medchat.plugin_kit import (
    DataError,
    LocalizedCommand,
    OpenedModel,
    UsageError,
    generation_flags,
    model_flags,
    open_data_file,
    open_model,
    require_extra,
    say,
    user_path,
)
from medchat_eval.flags import decisive, limit_flag, output_flags
from medchat_eval.output_folder import OutputFolder
from medchat_eval.replies import ModelReply, Prompt, replies_to
from medchat_eval.results import Evaluation, data_facts
from medchat_eval.task_yaml import METRICS, TaskFile, read_task_file

if TYPE_CHECKING:
    from medchat_eval.harness import HarnessRun

#: The metrics that a gate may name: of the others less is better.
GATED = tuple(name for names in METRICS.values() for name in names if name not in ("brier_score", "ter"))


@click.command(
    "lm-eval",
    cls=LocalizedCommand,
    help=say(
        "lm-evaluation-harness 的任务文件（YAML）：不含代码、数据在本机的原样运行。",
        "A task file (YAML) of lm-evaluation-harness: one without code, on data of this machine, runs unchanged.",
    ),
)
@click.option(
    "--task-file",
    metavar="FILE",
    required=True,
    help=say("任务文件", "the task file"),
)
@click.option(
    "--data",
    "data",
    metavar="SPLIT=FILE",
    multiple=True,
    help=say(
        "任务要的数据集里的一部分（test、dev 等）在哪个文件，可重复",
        "the file with a split of the data set that the task names (test, dev and so on), repeatable",
    ),
)
@click.option(
    "--shots",
    type=click.IntRange(0, 50),
    metavar="N",
    help=say(
        "每题前面放几道示例；不写则按任务", "so many examples before each question; else as the task says"
    ),
)
@limit_flag
@output_flags(GATED)
@model_flags
@generation_flags
def lm_eval_task(
    task_file: str,
    data: tuple[str, ...],
    shots: int | None,
    limit: int | None,
    output: OutputFolder,
    **flags: Any,
) -> int:
    """Evaluate; raise GateError (7) where a gate is not met."""
    require_extra("lm-eval", "lm_eval", "yaml")
    task = read_task_file(user_path(task_file))
    files = {**task.data, **_given(data)}
    if not files:
        raise UsageError(
            say(f"任务的数据集在网上：{task.dataset}", f"the task's data set is on a hub: {task.dataset}"),
            say("下载它的文件，写上：--data test=文件", "download its files and add: --data test=FILE"),
            where=str(task.path),
        )
    facts: list[dict[str, Any]] = [data_facts(path, digest, 0) for path, digest in task.files.items()]
    records = {split: [row for path in paths for row in _rows(path, facts)] for split, paths in files.items()}
    output.make()
    with open_model(decisive(_generation(task, flags))) as opened:

        def replies(prompts: Sequence[Prompt]) -> list[ModelReply]:
            with output.answers() as results:
                return list(replies_to(opened, results, prompts))

        # Takes seconds to import.
        from medchat_eval.harness import run_task

        found = run_task(task, records, opened, replies, shots=shots, limit=limit)
        evaluation = _evaluation(task, found, opened, facts, limit)
    return output.finish(evaluation)


def _evaluation(
    task: TaskFile,
    found: HarnessRun,
    opened: OpenedModel,
    facts: Sequence[Mapping[str, Any]],
    limit: int | None,
) -> Evaluation:
    metadata = task.config.get("metadata")
    settings: dict[str, Any] = {
        "lm_eval": version("lm_eval"),
        "task_version": metadata.get("version", "") if isinstance(metadata, dict) else "",
        "output_type": task.output_type,
        "shots": found.shots,
    }
    settings |= {"limit": limit} if limit else {}
    counts = {"questions": len(found.items), "refused": found.refused}
    name, model = f"lm-eval-{task.name}", opened.provenance
    return Evaluation(name, model, facts, settings, found.metrics, {}, counts, found.items, (), opened.mark)


def _given(data: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of `--data` by split. Raises UsageError for a word of another form."""
    found: dict[str, list[Path]] = {}
    for one in data:
        split, equals, file = one.partition("=")
        if not equals or not split or not file:
            raise UsageError(
                say(f"--data {one} 不是 名称=文件", f"--data {one} is not SPLIT=FILE"), "--data test=FILE"
            )
        found.setdefault(split, []).append(user_path(file))
    return found


def _rows(path: Path, facts: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records of a file, and note it in `facts`. Raises DataError for one that is no object, or for none."""
    rows: list[Mapping[str, Any]] = []
    with open_data_file(path, is_known=lambda name: True) as file:
        for item in file.items():
            if item.problem or not isinstance(item.value, dict):
                raise DataError(
                    item.problem or say("应当是一个 JSON 对象", "must be a JSON object"),
                    say("修正这一条", "correct it"),
                    where=f"{path}:{item.line}",
                )
            rows.append(item.value)
        rows = _typed(rows) if file.layout in ("csv", "tsv") else rows
        facts.append(data_facts(path, file.sha256, len(rows)))
    if not rows:
        raise DataError(
            say("文件里没有记录", "the file holds no record"),
            say("换一个文件", "take another file"),
            where=str(path),
        )
    return rows


def _typed(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a table, the columns of whole numbers as numbers: so the harness would have read them."""
    names = dict.fromkeys(name for row in rows for name in row)
    whole = {
        name for name in names if all(re.fullmatch(r"-?\d{1,18}", row[name]) for row in rows if name in row)
    }
    return [{name: int(value) if name in whole else value for name, value in row.items()} for row in rows]


def _generation(task: TaskFile, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags, with the task's length of answers where none is given. Raises DataError where it samples."""
    wanted = task.config.get("generation_kwargs")
    if not isinstance(wanted, dict):
        return dict(flags)
    if wanted.get("do_sample"):
        raise DataError(
            say("do_sample：任务要随机取样", "do_sample: the task draws its answers at random"),
            say("改为 false；评测要能重复", "set it to false: an evaluation can be repeated"),
            where=str(task.path),
        )
    length = wanted.get("max_gen_toks")
    if flags.get("max_new_tokens") is None and isinstance(length, int):
        return {**flags, "max_new_tokens": length}
    return dict(flags)
