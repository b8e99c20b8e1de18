"""Runs of one task side by side, with tests that pair the same questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.plugin_kit import CheckpointError, DataError, Document, Paragraph, Section, Table, read_json, say
from medchat_eval.output_folder import RESULTS
from medchat_eval.results import SCHEMA, SCHEMA_VERSION
from medchat_eval.statistics import bootstrap_interval, mcnemar

#: The most that a results file may take.
MAX_RESULTS_BYTES = 256 << 20
#: What a question is paired by.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """What is compared of one results.json: its metrics, and the score of each question that has one."""

    label: str
    path: Path
    task: str
    metrics: Mapping[str, Mapping[str, Any]]
    scores: Mapping[Key, float]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The first run against another on the questions of both. `p` is McNemar's where all scores are 0 or 1."""

    label: str
    count: int
    difference: float
    low: float
    high: float
    p: float | None


def read_run(label: str, path: Path) -> EvaluationRun:
    """Read the results of a run, by its folder or its file.

    Raises CheckpointError where they cannot be read, DataError for a file that holds no results of this version.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        content = read_json(file, MAX_RESULTS_BYTES)
    except OSError as error:
        raise CheckpointError(
            say(f"无法读取评测结果：{error.strerror}", f"cannot read the results: {error.strerror}"),
            say("先运行：medchat eval … --output 目录", "first run: medchat eval … --output DIR"),
            where=str(file),
        ) from None
    except ValueError as error:
        raise _no_results(file, str(error)) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise _no_results(file, say("不是 medchat eval 的结果", "no results of medchat eval"))
    if content.get("schema_version") != SCHEMA_VERSION:
        stated = content.get("schema_version")
        raise _no_results(file, say(f"版本 {stated} 不认识", f"version {stated} is not known"))
    items = content.get("items")
    try:
        scores = {
            (str(item["id"]), str(item["question"])): float(item["score"])
            for item in (items if isinstance(items, list) else ())
            if item.get("score") is not None
        }
        return EvaluationRun(label, file, str(content["task"]), dict(content["metrics"]), scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_results(file, f"{type(error).__name__}: {error}") from None


def paired_tests(runs: Sequence[EvaluationRun]) -> list[PairedTest]:
    """Return each later run against the first one. Raises DataError for runs of other tasks or other questions."""
    first, *others = runs
    return [_paired(first, other) for other in others]


def _paired(first: EvaluationRun, other: EvaluationRun) -> PairedTest:
    both = [key for key in first.scores if key in other.scores]
    if first.task != other.task or not both:
        raise DataError(
            say("不是同一个任务，或没有相同的题", "not the same task, or no question in common"),
            say("只比较同一份题的评测", "compare evaluations of the same questions alone"),
            where=f"{first.path}, {other.path}",
        )
    pairs = [(first.scores[key], other.scores[key]) for key in both]
    differences = [after - before for before, after in pairs]
    interval = bootstrap_interval(differences)
    binary = all(value in (0.0, 1.0) for pair in pairs for value in pair)
    p = mcnemar(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))) if binary else None
    mean = math.fsum(differences) / len(pairs)
    return PairedTest(other.label, len(pairs), mean, interval.low, interval.high, p)


def comparison_document(runs: Sequence[EvaluationRun], tests: Sequence[PairedTest]) -> Document:
    """Return the page: every metric of every run, then the tests."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows = [[name, *(_cell(run.metrics.get(name)) for run in runs)] for name in names]
    heads = (say("指标", "metric"), *(run.label for run in runs))
    sections = [Section(say("指标", "Metrics"), [Table(heads, rows)])]
    if tests:
        sections.append(Section(say("与第一个比较", "Against the first"), list(_tests(runs[0], tests))))
    return Document(say(f"评测对比：{runs[0].task}", f"Evaluations compared: {runs[0].task}"), sections)


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


def _cell(metric: Mapping[str, Any] | None) -> str:
    if not metric:
        return ""
    interval = metric.get("interval")
    ends = f" [{interval[0]:.3f}–{interval[1]:.3f}]" if interval else ""
    return f"{metric['value']:.3f}{ends}"


def _no_results(file: Path, reason: str) -> DataError:
    return DataError(
        say(f"不能用作评测结果：{reason}", f"cannot be used as results: {reason}"),
        say("用 medchat eval 重新生成", "make them again with medchat eval"),
        where=str(file),
    )
