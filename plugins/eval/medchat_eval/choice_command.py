"""`medchat eval choice`: choice questions, by what the model finds most probable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from itertools import islice
from typing import Any

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    OpenedModel,
    generation_flags,
    model_flags,
    open_model,
    say,
    user_path,
)
from medchat_eval.choice_file import ChoiceFile, ChoiceItem, read_answers, read_choice_file
from medchat_eval.choice_metrics import METRICS, ChoiceTally
from medchat_eval.choice_prompt import FORM_VERSION, AskedChoice, examples_for, in_every_order
from medchat_eval.likelihood import Chosen, choose_by_likelihood
from medchat_eval.output_folder import open_folder, write_evaluation
from medchat_eval.results import Evaluation, parse_gates, require_gates
from medchat_eval.scorer import scorer_of

#: The choice questions that are shipped.
SAMPLE_FILE = "data/choice.jsonl"


@click.command(
    "choice",
    cls=LocalizedCommand,
    help=say(
        "选择题：CMB-Exam、CMExam、CMMLU、C-Eval、MedQA 等文件，写出准确率、区间、随机水平和报告。",
        "Choice questions: files of CMB-Exam, CMExam, CMMLU, C-Eval, MedQA and their like. Writes accuracy,"
        " interval, chance and a report.",
    ),
)
@click.option(
    "--file",
    "names",
    metavar="FILE",
    multiple=True,
    help=say(
        "题目文件，可重复；不写则用附带的 20 题",
        "the questions, repeatable; without it the 20 that are shipped",
    ),
)
@click.option(
    "--answers",
    metavar="FILE",
    help=say("按 id 给出答案的文件（CMB 的测试集）", "a file with the answers by id (CMB's test set)"),
)
@click.option(
    "--examples",
    metavar="FILE",
    help=say("示例题文件：每题前面先放几道做好的题", "worked examples that go before each question"),
)
@click.option(
    "--shots",
    type=click.IntRange(0, 50),
    metavar="N",
    default=5,
    show_default=True,
    help=say(
        "每题前面放几道示例（要有 --examples）", "so many examples before each question (with --examples)"
    ),
)
@click.option(
    "--by",
    type=click.Choice(["letters", "texts"]),
    default="letters",
    show_default=True,
    help=say(
        "比较什么的概率：选项字母，或选项的文字",
        "compare the probability of the letters, or of the options' texts",
    ),
)
@click.option("--no-rotation", is_flag=True, help=say("不轮换选项顺序", "do not rotate the options"))
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help=say("只做前 N 题", "the first N questions alone")
)
@click.option(
    "--skip-bad", is_flag=True, help=say("跳过有误的记录并计数", "pass over bad records and count them")
)
@click.option(
    "--output", metavar="DIR", required=True, help=say("结果写到这个目录", "the folder for the results")
)
@click.option("--overwrite", is_flag=True, help=say("替换里面已有的评测", "replace the evaluation in it"))
@click.option(
    "--min",
    "gates",
    metavar="METRIC=VALUE",
    multiple=True,
    help=say("低于这个值时退出码为 7，可重复：", "exit code 7 below this value, repeatable: ")
    + ", ".join(METRICS),
)
@model_flags
@generation_flags
def choice(
    names: tuple[str, ...],
    answers: str | None,
    examples: str | None,
    shots: int,
    by: str,
    no_rotation: bool,
    limit: int | None,
    skip_bad: bool,
    output: str,
    overwrite: bool,
    gates: tuple[str, ...],
    **flags: Any,
) -> int:
    """Evaluate; raise GateError (7) where a gate is not met."""
    least = parse_gates(gates, METRICS)
    read = list(_files(names, answers, skip_bad))
    worked = read_choice_file(user_path(examples)).items if examples else ()
    folder = user_path(output)
    open_folder(folder, resume=False, overwrite=overwrite)
    items = list(islice((item for file in read for item in file.items), limit))
    rotated = not no_rotation and by == "letters"
    settings = {
        "by": by,
        "rotation": rotated,
        "shots": shots if worked else 0,
        "prompt_form": FORM_VERSION,
        **({"limit": limit} if limit else {}),
    }
    with open_model(flags) as opened:
        turns = _by_likelihood(opened, items, worked, shots, rotated=rotated, by_text=by == "texts")
        tally = ChoiceTally(turns)
        evaluation = Evaluation(
            "choice",
            opened.provenance,
            [_described(file) for file in read],
            settings,
            tally.metrics,
            {"subject": tally.subjects},
            tally.counts | {"bad_records": sum(len(file.bad) for file in read)},
            tally.items,
            tally.warnings,
            opened.mark,
        )
    write_evaluation(folder, evaluation)
    require_gates(evaluation.metrics, least)
    return 0


def _files(names: Sequence[str], answers: str | None, skip_bad: bool) -> Iterator[ChoiceFile]:
    by_id = read_answers(user_path(answers)) if answers else None
    for name in names:
        yield read_choice_file(user_path(name), answers=by_id, skip_bad=skip_bad)
    if not names:
        with as_file(files("medchat_eval").joinpath(SAMPLE_FILE)) as path:
            yield read_choice_file(path)


def _described(file: ChoiceFile) -> dict[str, Any]:
    return {"file": file.path.name, "sha256": file.sha256, "questions": len(file.items)}


def _by_likelihood(
    opened: OpenedModel,
    items: Sequence[ChoiceItem],
    worked: Sequence[ChoiceItem],
    shots: int,
    *,
    rotated: bool,
    by_text: bool,
) -> Iterator[list[Chosen]]:
    """Yield the choices for one question after the other, in each order of its options."""
    orders = [in_every_order(item) if rotated else [_asked(item, by_text=by_text)] for item in items]
    scorer = scorer_of(opened, lambda asked: examples_for(asked, worked, shots))
    chosen = choose_by_likelihood((one for order in orders for one in order), scorer, by_text=by_text)
    for order in orders:
        yield list(islice(chosen, len(order)))


def _asked(item: ChoiceItem, *, by_text: bool) -> AskedChoice:
    """Return the question in its file's order; a set of options is always asked for by letters."""
    return AskedChoice(item, shows_options=not by_text or item.several)
