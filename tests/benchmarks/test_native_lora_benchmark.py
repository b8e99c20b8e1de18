"""The benchmark of LoRA in the native engine: it runs each way, and fails where a bar is missed."""

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
import native_lora

pytestmark = [pytest.mark.torch, pytest.mark.slow, COMPILED]


def test_the_report_has_every_way_and_says_which_bar_was_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    widths = {"hidden_size": 64, "num_attention_heads": 4}
    monkeypatch.setattr(native_decoder, "CHATGLM", {**widths, "inner_hidden_size": 96})
    monkeypatch.setattr(native_decoder, "LLAMA", {**widths, "intermediate_size": 96})
    monkeypatch.setattr(native_lora, "BARS", {"token": 0.0, "prompt": 1e9})
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["x", "--rounds", "1", "--json", str(file)])
    threads = torch.get_num_threads()
    assert native_lora.main() == 1
    torch.set_num_threads(threads)
    found = json.loads(file.read_text(encoding="utf-8"))
    for family in ("llama int4", "chatglm int4"):
        for what in ("token", "prompt"):
            assert min(found[family][what].values()) > 0
            assert found[family][what].keys() == {"without_ms", "rank8", "rank64", "rank8 through torch"}
    assert [failure.partition(":")[0] for failure in found["failures"]] == [
        "llama int4, token",
        "chatglm int4, token",
    ]
