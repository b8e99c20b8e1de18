"""Several runs as a page and as data: metrics, paired tests, and the answers side by side with their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medchat.plugin_kit import Document, Paragraph, Section, Table, aigc_metadata, disclaimer, say
from medchat_eval.comparing import EvaluationRun, Key, PairedTest
from medchat_eval.report import condition_text

#: So many questions have their answers on the page; the data has all.
_SHOWN = 50


def comparison_document(runs: Sequence[EvaluationRun], tests: Sequence[PairedTest]) -> Document:
    """Return the page."""
    sections = [Section(say("指标", "Metrics"), [_metrics(runs)])] if any(run.metrics for run in runs) else []
    if tests:
        sections.append(Section(say("与第一个比较", "Against the first"), list(_tests(runs[0], tests))))
    keys = _keys(runs)
    metadata: dict[str, Any] = {}
    if keys:
        sections.append(Section(say("回答和得分", "Answers and scores"), list(_answers(runs, keys))))
        metadata["AIGC"] = aigc_metadata(json.dumps(_questions(runs, keys), ensure_ascii=False))
    sections.append(Section(say("各列", "Columns"), [_columns(runs)]))
    title = say(f"评测对比：{runs[0].task}", f"Evaluations compared: {runs[0].task}")
    return Document(title, sections, metadata)


def comparison_data(runs: Sequence[EvaluationRun], tests: Sequence[PairedTest]) -> dict[str, Any]:
    """Return the same as data, every answer as the model wrote it."""
    questions = _questions(runs, _keys(runs))
    return {
        "task": runs[0].task,
        "columns": [{"label": run.label, **run.model} for run in runs],
        "metrics": {run.label: dict(run.metrics) for run in runs},
        "against_first": [asdict(one) for one in tests],
        "questions": questions,
        "disclaimer": _mark(runs),
        "AIGC": aigc_metadata(json.dumps(questions, ensure_ascii=False)),
    }


def _mark(runs: Sequence[EvaluationRun]) -> str:
    """Return what says that the answers are a model's: as the runs have it, else the whole statement."""
    return next((run.mark for run in runs if run.mark), disclaimer())


def _keys(runs: Sequence[EvaluationRun]) -> list[Key]:
    """Return the questions that any run has an answer to, in the first one's order."""
    return list(dict.fromkeys(key for run in runs for key, answer in run.answers.items() if answer))


def _reference(runs: Sequence[EvaluationRun], key: Key) -> str:
    return next((found for run in runs if (found := run.references.get(key))), "")


def _questions(runs: Sequence[EvaluationRun], keys: Sequence[Key]) -> list[dict[str, Any]]:
    return [
        {
            "id": key[0],
            "question": key[1],
            "reference": _reference(runs, key),
            "answers": {
                run.label: {"answer": run.answers[key], "score": run.scores.get(key)}
                for run in runs
                if key in run.answers
            },
        }
        for key in keys
    ]


def _metrics(runs: Sequence[EvaluationRun]) -> Table:
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    chances = {
        name: next(
            (run.metrics[name]["chance"] for run in runs if "chance" in run.metrics.get(name, {})), None
        )
        for name in names
    }
    rows = [
        (
            name,
            *(_cell(run.metrics.get(name)) for run in runs),
            "" if chances[name] is None else f"{chances[name]:.3f}",
        )
        for name in names
    ]
    return Table((say("指标", "metric"), *(run.label for run in runs), say("随机水平", "chance")), rows)


def _cell(metric: Mapping[str, Any] | None) -> str:
    if not metric:
        return ""
    interval = metric.get("interval")
    ends = f" [{interval[0]:.3f}–{interval[1]:.3f}]" if interval else ""
    count = say("，", ", ") + f"n = {metric['n']}" if "n" in metric else ""
    return f"{metric['value']:.3f}{ends}{count}"


def _tests(first: EvaluationRun, tests: Sequence[PairedTest]) -> Iterator[Any]:
    heads = ("", say("得分差", "difference"), say("95% 区间", "95 % interval"), "p (McNemar)", "n")
    rows = [
        (
            one.label,
            f"{one.difference:+.3f}",
            f"{one.low:+.3f}–{one.high:+.3f}",
            "" if one.p is None else f"{one.p:.4f}",
            str(one.count),
        )
        for one in tests
    ]
    yield Table(heads, rows, numbers=(1, 2, 3, 4))
    yield Paragraph(
        say(
            f"差值是减去 {first.label} 之后的平均得分，逐题配对；区间由自助法得出，包含 0 就说明不了有差别。",
            f"The difference is the mean score less that of {first.label}, question by question; the interval is by"
            " bootstrap, and one that holds 0 shows no difference.",
        )
    )


def _answers(runs: Sequence[EvaluationRun], keys: Sequence[Key]) -> Iterator[Any]:
    """Yield the table of answers: the references and the scores are columns where there are any."""
    referred = any(_reference(runs, key) for key in keys)
    heads, numbers = [say("问题", "question")], []
    heads += [say("参考答案", "reference")] if referred else []
    for run in runs:
        heads.append(run.label)
        if run.scores:
            numbers.append(len(heads))
            heads.append(say("得分", "score"))
    yield Paragraph(_mark(runs))
    yield Table(tuple(heads), [_row(runs, key, referred=referred) for key in keys[:_SHOWN]], tuple(numbers))
    left = len(keys) - _SHOWN
    if left > 0:
        yield Paragraph(
            say(f"还有 {left} 题没有列出，JSON 里都有。", f"{left} more questions are in the JSON alone.")
        )


def _row(runs: Sequence[EvaluationRun], key: Key, *, referred: bool) -> list[str]:
    row = [key[1], *([_reference(runs, key)] if referred else [])]
    for run in runs:
        row.append(run.answers.get(key, ""))
        if run.scores:
            row.append(f"{run.scores[key]:.3f}" if key in run.scores else "")
    return row


def _columns(runs: Sequence[EvaluationRun]) -> Table:
    names = list(dict.fromkeys(name for run in runs for name in (*run.model, *run.settings)))
    conditions = [{**run.settings, **run.model} for run in runs]
    rows = [(name, *(condition_text(one.get(name)) for one in conditions)) for name in names]
    return Table(("", *(run.label for run in runs)), rows)
