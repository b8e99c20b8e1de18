"""Runs of one task side by side, with tests that pair the same questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.plugin_kit import CheckpointError, DataError, read_json, say
from medchat_eval.output_folder import RESULTS
from medchat_eval.results import SCHEMA, SCHEMA_VERSION
from medchat_eval.statistics import bootstrap_interval, mcnemar

#: The most that a results file may take.
MAX_RESULTS_BYTES = 256 << 20
#: What a question is paired by.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """What is compared of one run: its metrics, and of each question its score, answer and reference if there are."""

    label: str
    path: Path
    task: str
    metrics: Mapping[str, Mapping[str, Any]]
    scores: Mapping[Key, float]
    answers: Mapping[Key, str] = field(default_factory=dict)
    references: Mapping[Key, str] = field(default_factory=dict)
    #: What answered, and how it was asked.
    model: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: What says that the answers are a model's.
    mark: str = ""


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
    try:
        return _as_run(label, file, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_results(file, f"{type(error).__name__}: {error}") from None


def _as_run(label: str, file: Path, content: Mapping[str, Any]) -> EvaluationRun:
    items = content.get("items")
    keyed = {
        (str(item["id"]), str(item["question"])): item for item in (items if isinstance(items, list) else ())
    }
    return EvaluationRun(
        label,
        file,
        str(content["task"]),
        dict(content["metrics"]),
        {key: float(item["score"]) for key, item in keyed.items() if item.get("score") is not None},
        {key: str(item.get("reply") or item.get("chosen") or "") for key, item in keyed.items()},
        {key: str(item.get("reference") or item.get("answer") or "") for key, item in keyed.items()},
        dict(content.get("model") or {}),
        dict(content.get("settings") or {}),
        str(content.get("disclaimer") or ""),
    )


def paired_tests(runs: Sequence[EvaluationRun]) -> list[PairedTest]:
    """Return each later run against the first one, none for runs without a single score.

    Raises DataError for runs of other tasks, of other questions, or of questions that were put in other words.
    """
    first, *others = runs
    for other in others:
        _require_comparable(first, other)
    return [_paired(first, other) for other in others if first.scores or other.scores]


def _require_comparable(first: EvaluationRun, other: EvaluationRun) -> None:
    where = f"{first.path}, {other.path}"
    both = first.answers.keys() & other.answers.keys()
    if first.task != other.task or not both:
        raise DataError(
            say("不是同一个任务，或没有相同的题", "not the same task, or no question in common"),
            say("只比较同一份题的评测", "compare evaluations of the same questions alone"),
            where=where,
        )
    for name in ("prompt_form", "judge_form"):
        ours, theirs = (run.settings.get(name) for run in (first, other))
        if ours != theirs:
            raise DataError(
                say(
                    f"题目的问法不同（{name} 为 {ours} 和 {theirs}），分数不能比较",
                    f"the questions were put in other words ({name} {ours} and {theirs}): scores do not compare",
                ),
                say("用同一版本重新评测其中一次", "repeat one of them with the version of the other"),
                where=where,
            )


def _paired(first: EvaluationRun, other: EvaluationRun) -> PairedTest:
    both = [key for key in first.scores if key in other.scores]
    if not both:
        raise DataError(
            say("没有两次都有得分的题", "no question has a score in both"),
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


def _no_results(file: Path, reason: str) -> DataError:
    return DataError(
        say(f"不能用作评测结果：{reason}", f"cannot be used as results: {reason}"),
        say("用 medchat eval 重新生成", "make them again with medchat eval"),
        where=str(file),
    )
