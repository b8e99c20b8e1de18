"""The benchmark of drafts: it computes both kinds of answers, and fails where a bar is missed."""

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
import prompt_lookup

pytestmark = [pytest.mark.torch, COMPILED]


def test_the_report_has_both_kinds_of_answers_and_says_which_bar_was_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    widths = {"hidden_size": 64, "num_attention_heads": 4}
    monkeypatch.setattr(native_decoder, "CHATGLM", {**widths, "inner_hidden_size": 96})
    monkeypatch.setattr(native_decoder, "LLAMA", {**widths, "intermediate_size": 96})
    monkeypatch.setattr(prompt_lookup, "BARS", {"quoting": 0.0, "free": 1e9})
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["x", "--rounds", "1", "--tokens", "60", "--json", str(file)])
    threads = torch.get_num_threads()
    assert prompt_lookup.main() == 1
    torch.set_num_threads(threads)
    found = json.loads(file.read_text(encoding="utf-8"))
    for family in ("llama int8", "llama int4", "chatglm int8", "chatglm int4"):
        assert found[family]["quoting"]["accepted"] > 0
        assert found[family]["quoting"]["ratio"] > 0
    assert [failure.split(":")[0] for failure in found["failures"]] == [
        f"{family}, free" for family in ("llama int8", "llama int4", "chatglm int8", "chatglm int4")
    ]
