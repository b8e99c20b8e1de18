"""The course report's experiment: three methods on one base and the same data, in one table."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from script_runs import flag, run, words
from sft_arguments import data

pytest_plugins = ("evaluated_models",)


def test_each_method_is_trained_measured_and_compared_with_the_base(tmp_path: Path) -> None:
    chosen = {"MODEL": "my base", "DATA": "d.json", "OUTPUT": "o", "QUESTIONS": "q.csv"}
    calls = words(tmp_path, "compare-methods.sh", "--num-epochs", "1", **chosen)
    trained, measured, (compared,) = calls[:3], calls[3:7], calls[7:]
    assert [flag(call, "--method") for call in trained] == ["lora", "qlora", "adapter"]
    assert {flag(call, "--data") for call in trained} == {"d.json"} and flag(
        trained[2], "--num-epochs"
    ) == "1"
    assert [flag(call, "--adapter") for call in measured] == [None, "o/lora", "o/qlora", "o/adapter"]
    assert {(flag(call, "--model"), flag(call, "--file")) for call in measured} == {("my base", "q.csv")}
    assert {flag(call, "--template") for call in (*trained, *measured)} == {"med_template"}
    assert compared == [
        "eval",
        "compare",
        *(f"{name}=o/eval-{name}" for name in ("base", "lora", "qlora", "adapter")),
    ]


def test_a_trained_method_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "o" / "lora").mkdir(parents=True)
    (tmp_path / "o" / "lora" / "manifest.json").touch()
    calls = words(tmp_path, "compare-methods.sh", MODEL="base", OUTPUT="o", METHODS="lora adapter")
    assert [flag(call, "--method") for call in calls if call[0] == "sft"] == ["adapter"]


@pytest.mark.parametrize(
    ("chosen", "template"),
    [
        ({"BACKBONE": "chatglm"}, None),
        ({"TEMPLATE": "alpaca"}, "alpaca"),
        ({"BACKBONE": "bloom"}, "med_template"),
    ],
)
def test_all_are_asked_in_one_template(chosen: dict[str, str], template: str | None, tmp_path: Path) -> None:
    calls = words(tmp_path, "compare-methods.sh", MODEL="base", OUTPUT="o", METHODS="lora", **chosen)
    assert [flag(call, "--template") for call in calls[:-1]] == [template] * 3


@pytest.mark.slow
@pytest.mark.torch
def test_the_experiment_ends_in_a_table_on_a_miniature(tiny_llama: Path, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    chosen = {"MODEL": str(tiny_llama), "DATA": data(tmp_path), "OUTPUT": str(tmp_path / "out")}
    arguments = ("--num-epochs", "1", "--samples", "0", "--device", "cpu")
    ended = run("compare-methods.sh", *arguments, folder=tmp_path, path=path, environment=chosen, timeout=500)
    assert ended.returncode == 0, ended.stderr
    assert "| base | lora | qlora | adapter |" in ended.stdout and "accuracy" in ended.stdout
