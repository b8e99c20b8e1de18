"""What is refused, or pointed out, before anything is loaded; a dry run says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_program import Call
from launched import launch
from sft_arguments import sft

from medchat.training import training_arguments

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--fused-backward",), "--fused-backward"),
        (("--report-to", "wandb"), "medchat[wandb]"),
        (("--optimizer", "adafactor"), "--optimizer adamw"),
    ],
)
def test_what_cannot_run_here_is_refused_before_anything_is_loaded_and_by_a_dry_run(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(training_arguments, "find_spec", lambda name: None)
    if "adafactor" in flags:
        launch(monkeypatch, 2)
    words = sft(tmp_path, "--batch-size", "4", "--micro-batch-size", "2", *flags)
    told = call(*words, "--dry-run")
    assert told.code == 2 and said in told.failure()[1], told.err


def test_the_length_advised_is_for_all_records_and_does(tmp_path: Path, call: Call) -> None:
    pairs = [(f"{number}：" + "头痛怎么办？" * (number + 1), "多休息。" * 3) for number in range(40)]
    words = sft(tmp_path, "--dry-run", pairs=pairs)
    refused = call(*words, "--max-length", "24")
    what, remedy = refused.failure()
    assert refused.code == 6 and what.startswith("错误：40 条")
    enough, whole = re.search(r"--max-length (\d+)（(\d+) ", remedy).groups()  # type: ignore[union-attr]
    assert call(*words, "--max-length", enough).code == 0
    told = call(*words, "--max-length", whole, "--json").one()["survey"]
    assert told["over"] == told["cut_answers"] == told["cut_questions"] == 0


def test_early_stopping_without_an_evaluation_is_refused(tmp_path: Path, call: Call) -> None:
    words = sft(tmp_path, "--early-stopping", "2", "--dry-run")
    refused = call(*words)  # too few records to hold any out
    assert refused.code == 2 and "--val-size" in refused.failure()[1]
    assert call(*words, "--val-size", "2").code == 0
    assert call(*words, "--val-size", "2", "--eval-steps", "-1").code == 2


def test_going_on_where_there_is_nothing_asks_for_the_output(tmp_path: Path, call: Call) -> None:
    nowhere = call("sft", "--resume", "--output", str(tmp_path / "nope"))
    assert nowhere.code == 2 and str(tmp_path / "nope") in nowhere.failure()[0]
    alone = call("sft", "--resume")
    assert alone.code == 2 and "--output" in alone.failure()[1] and "--data" not in alone.failure()[1]


def test_answers_without_their_ends_are_pointed_out(tmp_path: Path, call: Call) -> None:
    words = sft(tmp_path, "--dry-run", pairs=[("头痛？", "多休息，多喝水，晚上早点睡。" * 9)] * 9)
    assert "失去结尾" in call(*words, "--max-length", "40").out
    assert "失去结尾" not in call(*words, "--max-length", "2000").out
