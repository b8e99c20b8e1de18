"""Reads the log of a run, `metrics.jsonl`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.regular_files import read_regular

FILE_NAME = "metrics.jsonl"
#: The limit of the log in bytes: about a million steps.
METRICS_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Point:
    """One value at one step."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Curves of a run, each by step."""

    loss: tuple[Point, ...] = ()
    held_out_loss: tuple[Point, ...] = ()
    learning_rate: tuple[Point, ...] = ()
    tokens_per_second: tuple[Point, ...] = ()


def read_metrics(folder: Path) -> Metrics:
    """Read the log of a run, empty if there is none. A torn last line is left out."""
    try:
        lines = read_regular(folder / FILE_NAME, METRICS_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return Metrics()
    rows = [row for line in lines if isinstance(row := _row(line), dict) and isinstance(row.get("step"), int)]
    return Metrics(
        _curve(rows, "loss"),
        _curve(rows, "eval_loss"),
        _curve(rows, "lr", "learning_rate"),
        _curve(rows, "tokens_per_second"),
    )


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _curve(rows: list[dict[str, Any]], *names: str) -> tuple[Point, ...]:
    points: dict[int, Point] = {}
    for row in rows:
        value = next((row[name] for name in names if name in row), None)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        ):
            points[row["step"]] = Point(row["step"], float(value))
    return tuple(points[step] for step in sorted(points))
