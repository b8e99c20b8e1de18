"""A run after the survey of the same data encodes nothing again; whatever changes in between counts."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import method_runs
import pytest
from method_runs import EXAMPLES, base, recipe
from sft_watcher import Watcher

from medchat.api import SFTData
from medchat.templates import load_template
from medchat.training import recipe as module

pytestmark = pytest.mark.torch


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the sizes of what is encoded."""
    sizes: list[int] = []
    plain = module.encode_examples

    def counting(examples, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(examples))
        return plain(examples, *rest)

    monkeypatch.setattr(module, "encode_examples", counting)
    return sizes


def settle(folder: Path) -> None:
    """Give the files a time long past, as anything that lay on the disk for a while has."""
    for file in folder.iterdir():
        os.utime(file, (time.time() - 100.5,) * 2)
    time.sleep(0.06)  # the time of the change itself cannot be set


@pytest.mark.parametrize("family", ["llama", "bloom", "huozi"])
def test_a_run_takes_what_the_survey_encoded(tmp_path: Path, family: str, encoded: list[int]) -> None:
    settle(base(family, tmp_path))
    lora, data = recipe(family, "lora"), SFTData(EXAMPLES)
    options = lora.resolve_options(method_runs.options(family, tmp_path, "lora"))
    lora.survey(data, options)
    assert encoded == [len(EXAMPLES), 0]
    report = lora.run(SFTData(list(EXAMPLES)), options, Watcher())
    assert report.examples == len(EXAMPLES)
    assert encoded == [len(EXAMPLES), 0]


def test_other_data_lengths_templates_and_vocabularies_are_encoded_anew(
    tmp_path: Path, encoded: list[int]
) -> None:
    folder = base("bloom", tmp_path)
    settle(folder)
    lora, data = recipe("bloom", "lora"), SFTData(list(EXAMPLES))
    options = method_runs.options("bloom", tmp_path, "lora")

    def surveys(data: SFTData, **changes: object) -> int:
        before = len(encoded)
        lora.survey(data, replace(options, **changes))  # type: ignore[arg-type]
        return (len(encoded) - before) // 2

    assert [surveys(data), surveys(data), surveys(data, seed=7)] == [1, 0, 0]
    assert surveys(data, max_length=200) == 1
    data.train.append(EXAMPLES[0])  # type: ignore[attr-defined]
    assert surveys(data, max_length=200) == 1
    assert surveys(replace(data, template=load_template("alpaca")), max_length=200) == 1
    file = folder / "special_tokens_map.json"
    stated = json.loads(file.read_text())
    file.write_text(json.dumps({**stated, "additional_special_tokens": ["<new>"]}))
    settle(folder)
    assert surveys(replace(data, template=load_template("alpaca")), max_length=200) == 1


def test_what_was_allowed_once_is_asked_again(
    tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[bool] = []
    monkeypatch.setattr(module, "refuse_left_out", lambda *_, allow: allowed.append(allow))
    settle(base("llama", tmp_path))
    lora, options = recipe("llama", "lora"), method_runs.options("llama", tmp_path, "lora")
    for allow in (True, False):
        lora.survey(SFTData(EXAMPLES), replace(options, allow_truncation=allow))
    assert allowed == [True, False] and len(encoded) == 2
