"""`medchat eval judge`: a model as the judge of answers that were given earlier, and how far to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from medchat.plugin_kit import (
    CallLimits,
    LocalizedCommand,
    OpenedModel,
    UsageError,
    call_flags,
    generation_flags,
    model_flags,
    open_model,
    say,
    user_path,
)
from medchat_eval.agreement import kappa_metric
from medchat_eval.flags import decisive, output_flags
from medchat_eval.judge_files import (
    AnswerFile,
    GivenAnswer,
    criteria_for,
    paired,
    read_answer_file,
    read_ratings,
    refuse_own_judge,
)
from medchat_eval.judge_forms import CRITERIA, DIMENSIONS, FORM_VERSION, FORMS, PAIRWISE, Judged
from medchat_eval.judging import Verdicts, judge_all
from medchat_eval.open_file import named_or_shipped, read_open_file
from medchat_eval.output_folder import OutputFolder
from medchat_eval.results import Evaluation, Metric, share_metric
from medchat_eval.text_command import OPEN_FILE

_RATED = tuple(name for names in DIMENSIONS.values() for name in names)
METRICS = (
    *("score", *_RATED, "verdict_rate", "self_agreement", "order_agreement"),
    *(f"human_{kind}_{name}" for kind in ("agreement", "kappa") for name in _RATED),
)


@click.command(
    "judge",
    cls=LocalizedCommand,
    help=say(
        "请另一个模型评判 medchat infer 的结果：按维度打分、按评分标准、或两份结果两两比较。",
        "Let another model judge results of medchat infer: by dimensions, by criteria, or two results in pairs.",
    ),
)
@click.argument("answers", metavar="RESULT…", nargs=-1, required=True)
@click.option(
    "--form",
    type=click.Choice(FORMS),
    default="cmcoqa",
    show_default=True,
    help=say("怎样评判", "how to judge"),
)
@click.option(
    "--questions",
    metavar="FILE",
    help=say(
        "带 criteria 的问题（--form criteria）；不写则用附带的", "questions with criteria, else those shipped"
    ),
)
@click.option(
    "--repeat",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help=say(
        "这么多回答再评一次，看评审是否前后一致",
        "so many are judged twice, to see whether the judge agrees with itself",
    ),
)
@click.option(
    "--human",
    metavar="FILE.csv",
    help=say(
        "人的打分（列 id 和各维度），计算一致程度",
        "people's ratings (columns id and the dimensions), to compare",
    ),
)
@output_flags(METRICS)
@model_flags
@generation_flags
@call_flags
def judge(
    answers: tuple[str, ...],
    form: str,
    questions: str | None,
    repeat: float,
    human: str | None,
    output: OutputFolder,
    **flags: Any,
) -> int:
    """Judge; raise GateError (7) where a gate is not met."""
    files = [read_answer_file(user_path(name)) for name in answers]
    given, judged = _to_judge(files, form, questions)
    dimensions = tuple(DIMENSIONS.get(form, ()))
    ratings = read_ratings(user_path(human), dimensions) if human and dimensions else {}
    limits = CallLimits.from_flags(flags)
    output.make()
    chosen = {
        "option": (*(flags.get("option") or ()), *limits.options),
        "backbone": flags.get("backbone") or "remote",
    }
    with open_model(decisive({**flags, **chosen})) as opened:
        refuse_own_judge(f"{opened.backbone} {opened.provenance['model']}", files)
        with output.calls(opened, limits) as calls:
            verdicts = judge_all(form, judged, calls.answer, repeat_every=round(1 / repeat) if repeat else 0)
        evaluation = _evaluated(opened, form, files, given, verdicts, ratings)
    return output.finish(evaluation)


def _to_judge(
    files: Sequence[AnswerFile], form: str, questions: str | None
) -> tuple[list[GivenAnswer], list[Judged]]:
    """Return the answers, and each as it is judged. Raises UsageError for too many files or too few."""
    wanted = 2 if form == PAIRWISE else 1
    if len(files) != wanted:
        raise UsageError(
            say(f"--form {form} 要 {wanted} 个结果文件", f"--form {form} takes {wanted} result file(s)"),
            "medchat eval judge " + " ".join(["RESULT"] * wanted) + f" --form {form}",
        )
    if form == PAIRWISE:
        pairs = paired(*files)
        return [one for one, _ in pairs], [
            Judged(one.question, (one.answer, other.answer)) for one, other in pairs
        ]
    given = list(files[0].answers)
    if form != CRITERIA:
        return given, [Judged(one.question, (one.answer,)) for one in given]
    with named_or_shipped(questions, OPEN_FILE) as path:
        by_text = {item.question.strip(): item for item in read_open_file(path).items}
        return given, [
            Judged(one.question, (one.answer,), criteria_for(one, by_text, path).criteria) for one in given
        ]


def _evaluated(
    opened: OpenedModel,
    form: str,
    files: Sequence[AnswerFile],
    given: Sequence[GivenAnswer],
    verdicts: Verdicts,
    ratings: Mapping[str, Mapping[str, int]],
) -> Evaluation:
    judge_name = str(opened.provenance["model"])
    items = []
    for one, verdict, score in zip(given, verdicts.first, verdicts.scores, strict=True):
        row: dict[str, Any] = {"id": one.id, "question": one.question, "reply": one.answer, "score": score}
        row |= {"verdict": verdict.value, "judge": judge_name, "prompt_sha256": verdict.sha256}
        items.append(
            row | ({"reject": verdict.reject, "judge_reply": verdict.reply} if verdict.reject else {})
        )
    every = [*verdicts.first, *verdicts.swapped, *verdicts.again.values()]
    rejects = sum(one.value is None for one in every)
    counts = {
        "answers": len(given),
        "calls": len(every),
        "rejected_verdicts": rejects,
        "answers_that_failed": sum(file.failed for file in files),
        "rated_by_people": sum(one.id in ratings for one in given),
    }
    metrics = verdicts.metrics | _human(given, verdicts, ratings)
    warnings = _warnings(rejects, rated=bool(ratings))
    settings = {"form": form, "judge_form": FORM_VERSION}
    data = [file.facts for file in files]
    return Evaluation(
        f"judge-{form}", opened.provenance, data, settings, metrics, {}, counts, items, warnings, opened.mark
    )


def _warnings(rejects: int, *, rated: bool) -> list[str]:
    warnings = []
    if rejects:
        warnings.append(
            say(
                f"{rejects} 次评判不合格式，没有采用",
                f"{rejects} verdicts were not of the asked form and are left out",
            )
        )
    if not rated:
        warnings.append(
            say(
                "没有和人的打分对照过：请用 --human 看评审与人是否一致",
                "not compared with people's ratings: --human shows whether the judge agrees with them",
            )
        )
    return warnings


def _human(
    given: Sequence[GivenAnswer], verdicts: Verdicts, ratings: Mapping[str, Mapping[str, int]]
) -> dict[str, Metric]:
    """Return how far the judge agrees with people, on each dimension that both rated."""
    found: dict[str, Metric] = {}
    for name in DIMENSIONS.get(verdicts.form, ()):
        pairs = [
            (int(verdict.value[name]), ratings[one.id][name])
            for one, verdict in zip(given, verdicts.first, strict=True)
            if verdict.value is not None and name in ratings.get(one.id, {})
        ]
        if pairs:
            ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
            found[f"human_agreement_{name}"] = share_metric([one == other for one, other in pairs])
            found[f"human_kappa_{name}"] = kappa_metric(ours, theirs)
    return found
