"""`medchat eval choice`: choice questions, by what the model finds most probable or by what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    OpenedModel,
    Results,
    generation_flags,
    model_flags,
    open_model,
    say,
    user_path,
)
from medchat_eval.choice_file import ChoiceFile, ChoiceItem, read_answers, read_choice_file
from medchat_eval.choice_metrics import METRICS, ChoiceTally
from medchat_eval.choice_prompt import FORM_VERSION, AskedChoice, examples_for, in_every_order
from medchat_eval.choosing import Chosen, choose_by_likelihood, choose_by_reply
from medchat_eval.flags import decisive, limit_flag, output_flags
from medchat_eval.open_file import named_or_shipped
from medchat_eval.output_folder import OutputFolder
from medchat_eval.replies import Prompt, replies_to
from medchat_eval.results import Evaluation
from medchat_eval.scorer import scorer_of

#: The choice questions that are shipped.
CHOICE_FILE = "data/choice.jsonl"


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
    type=click.Choice(["letters", "texts", "answers"]),
    default="letters",
    show_default=True,
    help=say(
        "怎样作答：比较选项字母的概率、比较选项文字的概率，或从生成的回答里提取",
        "how options are chosen: by the probability of their letters, of their texts, or from answers in words",
    ),
)
@click.option("--no-rotation", is_flag=True, help=say("不轮换选项顺序", "do not rotate the options"))
@limit_flag
@click.option(
    "--skip-bad", is_flag=True, help=say("跳过有误的记录并计数", "pass over bad records and count them")
)
@output_flags(METRICS)
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
    output: OutputFolder,
    **flags: Any,
) -> int:
    """Evaluate; raise GateError (7) where a gate is not met."""
    read = list(_files(names, answers, skip_bad))
    worked = read_choice_file(user_path(examples)).items if examples else ()
    output.make()
    items = list(islice((item for file in read for item in file.items), limit))
    rotated = not no_rotation and by != "texts"
    settings = {"by": by, "rotation": rotated, "shots": shots if worked else 0, "prompt_form": FORM_VERSION}
    settings |= {"limit": limit} if limit else {}
    orders = [in_every_order(item) if rotated else [_asked(item, by_text=by == "texts")] for item in items]
    with open_model(decisive(flags)) as opened, ExitStack() as stack:
        if by == "answers":
            results = stack.enter_context(output.answers())
            chosen = _by_replies(opened, results, orders, worked, shots)
        else:
            chosen = _by_likelihood(opened, orders, worked, shots, by_text=by == "texts")
        tally = ChoiceTally(list(islice(chosen, len(order))) for order in orders)
        evaluation = _evaluation(opened, read, settings, tally)
    return output.finish(evaluation)


def _evaluation(
    opened: OpenedModel, files: Sequence[ChoiceFile], settings: Mapping[str, Any], tally: ChoiceTally
) -> Evaluation:
    return Evaluation(
        "choice",
        opened.provenance,
        [file.facts for file in files],
        settings,
        tally.metrics,
        {"subject": tally.subjects},
        tally.counts | {"bad_records": sum(len(file.bad) for file in files)},
        tally.items,
        tally.warnings,
        opened.mark,
    )


def _by_likelihood(
    opened: OpenedModel,
    orders: Sequence[Sequence[AskedChoice]],
    worked: Sequence[ChoiceItem],
    shots: int,
    *,
    by_text: bool,
) -> Iterator[Chosen]:
    scorer = scorer_of(opened, lambda asked: examples_for(asked, worked, shots))
    questions = (one for order in orders for one in order)
    return choose_by_likelihood(questions, scorer, by_text=by_text)


def _files(names: Sequence[str], answers: str | None, skip_bad: bool) -> Iterator[ChoiceFile]:
    by_id = read_answers(user_path(answers)) if answers else None
    for name in names:
        yield read_choice_file(user_path(name), answers=by_id, skip_bad=skip_bad)
    if not names:
        with named_or_shipped(None, CHOICE_FILE) as path:
            yield read_choice_file(path)


def _by_replies(
    opened: OpenedModel,
    results: Results,
    orders: Sequence[Sequence[AskedChoice]],
    worked: Sequence[ChoiceItem],
    shots: int,
) -> Iterator[Chosen]:
    """Yield what the answers choose, for each question in each order of its options."""
    asked = [one for order in orders for one in order]
    prompts = [Prompt(one.prompt, examples_for(one, worked, shots)) for one in asked]
    for one, reply in zip(asked, replies_to(opened, results, prompts), strict=True):
        yield choose_by_reply(one, reply)


def _asked(item: ChoiceItem, *, by_text: bool) -> AskedChoice:
    """Return the question in its file's order; a set of options is always asked for by letters."""
    return AskedChoice(item, shows_options=not by_text or item.several)
