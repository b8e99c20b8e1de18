"""The benchmark of the native engine times the same weights in both engines, and notices a bar that is missed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from locations import ROOT
from native_engine import COMPILED

sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts beside one another, no package

import native_engine_products

pytestmark = [pytest.mark.torch, COMPILED]
SMALL = {"small": [(64, 48), (48, 64)]}


def test_both_engines_compute_the_same_weights() -> None:
    for bits in (8, 4):
        layers = native_engine_products.layers_of(SMALL["small"], bits)
        for reference, native in zip(layers["torch"][0], layers["native"][0], strict=True):
            assert torch.equal(reference.dense_weight(), native.dense_weight())


def test_the_ratio_is_that_of_the_medians() -> None:
    ticks = iter([0.0, 6.0, 10.0, 13.0] * 100)
    found = native_engine_products.compare(SMALL["small"], 8, 3, lambda: next(ticks))
    assert set(found) == {f"{tokens} tokens" for tokens in native_engine_products.TOKENS}
    assert {figures["speed_over_torch"] for figures in found.values()} == {2.0}


@pytest.mark.parametrize(("bar", "code"), [(0.0, 0), (1e9, 1)])
def test_a_missed_bar_is_exit_code_1(
    bar: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native_engine_products, "SHAPES", SMALL)
    monkeypatch.setattr(native_engine_products, "BARS", {8: {1: bar}})
    monkeypatch.setattr(
        sys, "argv", ["native_engine_products.py", "--rounds", "1", "--json", str(tmp_path / "f")]
    )
    threads = torch.get_num_threads()
    assert native_engine_products.main() == code
    torch.set_num_threads(threads)
    written = json.loads((tmp_path / "f").read_text(encoding="utf-8"))
    assert len(written["failures"]) == code and written["engine"].startswith("native ")
    assert json.loads(capsys.readouterr().out) == written
