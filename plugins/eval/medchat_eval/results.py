"""What an evaluation found, as every task states it, and its form on disk (results.json).

`SCHEMA_VERSION` rises when a field changes its meaning or goes; new fields do not raise it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medchat.plugin_kit import GateError, UsageError, say
from medchat_eval.statistics import Interval, Statistic, bootstrap, mean_interval, wilson

SCHEMA, SCHEMA_VERSION = "medchat-eval", 1
#: So many samples for the interval of a number that has no formula for it.
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Metric:
    """One number over `count` cases. `interval` is that of 95 %, `chance` what guessing gives; None: not known."""

    value: float
    count: int
    interval: Interval | None = None
    chance: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields."""
        found: dict[str, Any] = {"value": round(self.value, 6), "n": self.count}
        if self.interval is not None:
            found["interval"] = [round(self.interval.low, 6), round(self.interval.high, 6)]
        if self.chance is not None:
            found["chance"] = round(self.chance, 6)
        return found

    def as_flat(self) -> dict[str, float]:
        """Return the fields as the hooks give them: the ends of the interval are `low` and `high`."""
        found = {"value": self.value, "n": float(self.count)}
        if self.interval is not None:
            found |= {"low": self.interval.low, "high": self.interval.high}
        if self.chance is not None:
            found["chance"] = self.chance
        return found


def mean_metric(values: Sequence[float], bounds: Interval | None = None) -> Metric:
    """Return the mean of `values`, each within `bounds`, with its interval; 0 for none."""
    mean = math.fsum(values) / len(values) if values else 0.0
    return Metric(mean, len(values), mean_interval(values, bounds))


def share_metric(values: Sequence[float], chance: float | None = None) -> Metric:
    """Return the mean of values from 0 to 1 with Wilson's interval; 0 for none."""
    mean = math.fsum(values) / len(values) if values else 0.0
    return Metric(mean, len(values), wilson(mean, len(values)), chance)


def bootstrap_metric(value: float, count: int, statistic: Statistic, chance: float | None = None) -> Metric:
    """Return `value`, which `statistic` gives of all `count` cases, with its interval; none for fewer than two."""
    interval = bootstrap(count, statistic, draws=_DRAWS) if count > 1 else None
    return Metric(value, count, interval, chance)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One task, one model. `groups` are metrics of parts, by what they are parted by; `counts` are plain numbers.

    `items` are the single cases, each a mapping with `id` and, where there is one, `score` between 0 and 1.
    `warnings` say how the numbers may mislead, in the interface language.
    """

    task: str
    model: Mapping[str, Any]
    data: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    groups: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    disclaimer: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the content of results.json."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "medchat": version("medchat"),
            "model": dict(self.model),
            "data": [dict(one) for one in self.data],
            "settings": dict(self.settings),
            "metrics": {name: metric.as_json() for name, metric in self.metrics.items()},
            "groups": {
                by: {name: metric.as_json() for name, metric in parts.items()}
                for by, parts in self.groups.items()
            },
            "counts": dict(self.counts),
            "warnings": list(self.warnings),
            "disclaimer": self.disclaimer,
            "items": [dict(item) for item in self.items],
        }


def data_facts(path: Path, sha256: str, count: int, licences: Iterable[str] = ()) -> dict[str, Any]:
    """Return what results state of a file: name, digest, number of questions, the licences that its records name."""
    facts: dict[str, Any] = {"file": path.name, "sha256": sha256, "questions": count}
    stated = sorted({licence for licence in licences if licence})
    return facts | ({"license": stated} if stated else {})


def parse_gates(gates: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Return the least values by metric of `METRIC=VALUE` words. Raises UsageError for any other."""
    found = {}
    for gate in gates:
        name, equals, value = gate.partition("=")
        try:
            least = float(value)
        except ValueError:
            least = float("nan")
        if not equals or name not in known or least != least:
            raise UsageError(
                say(
                    f"--min {gate} 不是 指标=数值",
                    f"--min {gate} is not METRIC=VALUE",
                ),
                say(f"可用的指标：{'、'.join(known)}", f"metrics: {', '.join(known)}"),
            )
        found[name] = least
    return found


def require_gates(metrics: Mapping[str, Metric], gates: Mapping[str, float]) -> None:
    """Raise GateError (exit code 7) where a metric is under its least value, or was not measured."""
    missed = []
    for name, least in gates.items():
        metric = metrics.get(name)
        if metric is None or not metric.count or metric.value < least:
            value = say("没有结果", "not measured") if metric is None else f"{metric.value:.4f}"
            missed.append(f"{name} {value} < {least:g}")
    if missed:
        raise GateError(
            say(f"没有达到要求：{'；'.join(missed)}", f"below what was required: {'; '.join(missed)}"),
            say("结果都已写好，见 --output 里的 report.md", "all results are written: report.md in --output"),
        )
