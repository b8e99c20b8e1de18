"""`medchat eval compare`: metrics side by side, and a difference tested on the questions of both runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from medchat_eval.results import Evaluation, Metric
from medchat_eval.statistics import bootstrap_interval, mcnemar

pytest_plugins = ("cli_program",)


def write_run(folder: Path, scores: list[float], task: str = "choice", **changes: Any) -> Path:
    items = [{"id": str(at), "question": f"问 {at}？", "score": score} for at, score in enumerate(scores)]
    mean = Metric(sum(scores) / len(scores), len(scores))
    content = Evaluation(task, {}, [], {}, {"accuracy": mean}, items=items).as_json() | changes
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # 2 * P(X <= k) of the binomial distribution with one half.
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (10, 0, 0.001953125)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)


def test_the_bootstrap_holds_the_mean_95_times_in_100() -> None:
    draw, held = random.Random(1), 0
    for seed in range(100):
        interval = bootstrap_interval([draw.gauss(0.3, 1.0) for _ in range(40)], seed=seed, draws=150)
        held += interval.holds(0.3)
    assert 87 <= held <= 100
    assert bootstrap_interval([0.1, 0.5, 0.2]) == bootstrap_interval([0.1, 0.5, 0.2])


def test_runs_stand_side_by_side_and_are_tested_pair_by_pair(call: Call, tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", [0.0] * 12 + [1.0] * 8)
    after = write_run(tmp_path / "after", [1.0] * 10 + [0.0] * 2 + [1.0] * 8)
    done = call("eval", "compare", f"前={before}", f"后={after}", "--json")
    found = done.one()
    (test,) = found["against_first"]
    assert (test["label"], test["count"], test["p"]) == ("后", 20, pytest.approx(0.001953125))
    assert test["difference"] == pytest.approx(0.5) and 0 < test["low"] < test["high"]
    page = call("eval", "compare", str(before), str(after)).out
    assert "| before | after |" in page and "+0.500" in page


def test_scores_between_are_compared_without_mcnemar(call: Call, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0.25, 0.5, 1.0], "text") for name in ("a", "b")]
    (test,) = call("eval", "compare", *map(str, runs), "--json").one()["against_first"]
    assert test["p"] is None and (test["difference"], test["low"], test["high"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "changes", [{"schema": "other"}, {"schema_version": 99}, {"items": [{"id": 1}]}, {"task": "text"}]
)
def test_what_cannot_be_compared_is_named(changes: dict[str, Any], call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "good", [1.0, 0.0])
    write_run(tmp_path / "other", [1.0, 0.0], **changes)
    done = call("eval", "compare", str(tmp_path / "good"), str(tmp_path / "other"))
    assert done.code == 6 and "results.json" in done.err


def test_a_run_that_is_not_there_and_one_alone_are_refused(call: Call, tmp_path: Path) -> None:
    good = str(write_run(tmp_path / "good", [1.0]))
    assert call("eval", "compare", good, str(tmp_path / "missing")).code == 3
    assert call("eval", "compare", good).code == 2
    assert call("eval", "compare", good, good).code == 2
