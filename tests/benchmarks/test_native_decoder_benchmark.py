"""The benchmark of whole decoders: it runs each way to compute a model, and fails where a bar is missed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from locations import ROOT
from native_engine import COMPILED

sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts beside one another, no package

import native_decoder

pytestmark = [pytest.mark.torch, COMPILED]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = {"hidden_size": 64, "num_attention_heads": 4}
    monkeypatch.setattr(native_decoder, "CHATGLM", {**widths, "inner_hidden_size": 96})
    monkeypatch.setattr(native_decoder, "LLAMA", {**widths, "intermediate_size": 96})
    monkeypatch.setattr(native_decoder, "BLOOM", {"hidden_size": 64, "n_head": 4})
    monkeypatch.setattr(native_decoder, "READ_BYTES", 1 << 20)


def test_the_report_has_every_way_and_says_which_bar_was_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native_decoder, "DECODE_BARS", {8: 1e9})
    monkeypatch.setattr(native_decoder, "BATCH_BAR", 0.0)
    monkeypatch.setattr(native_decoder, "BANDWIDTH_BAR", 1e9)
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["x", "--rounds", "1", "--prompts", "40", "--json", str(file)])
    threads = torch.get_num_threads()
    assert native_decoder.main() == 1
    torch.set_num_threads(threads)
    found = json.loads(file.read_text(encoding="utf-8"))
    families = ("llama int8", "chatglm int8", "bloom int8")
    for family in families:
        assert all(found[family]["40 tokens"][f"{way}_ms"] > 0 for way in ("torch", "layered", "native"))
        assert found[family]["16 sequences"]["together_ms"] > 0
    missed = {failure.rpartition(":")[0] for failure in found["failures"]}
    assert missed == {"chatglm int8, a token", *(f"{one}, share of the bandwidth" for one in families)}
