"""The benchmark of fine-tuning notices each bar that is missed, and its two arms learn the same."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from child_process import child_environment
from locations import ROOT

BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts beside one another, no package

import sft_data  # noqa: E402
import sft_throughput  # noqa: E402

GOOD: dict[str, Any] = {
    "median_speed_ratio": 2.2,
    "worst_speed_ratio": 1.8,
    "memory_ratio": 0.5,
    "losses": {"largest_difference": 1e-5},
}


@pytest.mark.parametrize(
    "change",
    [
        {"median_speed_ratio": 2.19},
        {"worst_speed_ratio": 1.79},
        {"memory_ratio": 0.51},
        {"losses": {"largest_difference": 1.1e-5}},
        {"losses": {"largest_difference": float("nan")}},
    ],
)
def test_each_missed_bar_is_named_with_its_family(change: dict[str, Any]) -> None:
    assert sft_throughput.missed({"llama": GOOD, "chatglm": GOOD}) == []
    (found,) = sft_throughput.missed({"llama": GOOD, "chatglm": {**copy.deepcopy(GOOD), **change}})
    assert found.startswith("chatglm: ")


@pytest.mark.parametrize("family", sft_throughput.FAMILIES)
def test_made_up_records_are_as_long_as_the_published_ones(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    published = sft_data.shared_folder()
    monkeypatch.setattr(sft_data, "shared_folder", lambda: None)
    _, made = sft_data.records(family, 2000, 0)
    if published is None:
        pytest.skip("the published data is not here")
    monkeypatch.setattr(sft_data, "shared_folder", lambda: published)
    source, real = sft_data.records(family, 2000, 0)
    assert source == sft_data.SOURCES[family].file
    for part in (0, 1):
        ours, theirs = (sorted(len(record[part]) for record in some) for some in (made, real))
        for share in (0.25, 0.5, 0.75, 0.95, 0.98):
            assert ours[int(share * 2000)] == pytest.approx(theirs[int(share * 2000)], rel=0.1, abs=2)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("family", sft_throughput.FAMILIES)
def test_both_arms_have_the_same_losses_in_float64(tmp_path: Path, family: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "sft_throughput.py"), "--losses", "--family", family]
    done = subprocess.run(
        command, capture_output=True, text=True, env=child_environment(MEDCHAT_HOME=str(tmp_path))
    )
    assert done.returncode == 0, done.stderr[-2000:]
    losses = json.loads(done.stdout)
    assert len(losses["ours"]) == len(losses["seeds"]) == 6 and min(losses["ours"]) < losses["ours"][0]
    assert losses["largest_difference"] <= sft_throughput.LOSS_BAR
