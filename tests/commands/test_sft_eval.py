"""`medchat sft --eval`: the same questions before and after training, by the plugin of `medchat eval`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import Call
from sft_arguments import sft

from medchat.plugin_kit import hookimpl

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

QUESTIONS = [{"question": f"第 {at} 题？", "options": ["甲", "乙", "丙"], "answer": "B"} for at in range(3)]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "题目.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in QUESTIONS), encoding="utf-8")
    return path


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_a_run_is_evaluated_before_and_after(
    method: str, call: Call, questions: Path, tmp_path: Path
) -> None:
    output = tmp_path / "result"
    flags = ("--method", method, "--num-epochs", "1", "--output", str(output), "--samples", "0", "--yes")
    done = call(*sft(tmp_path, *flags, "--eval", f"choice={questions}", family="llama"))
    assert done.code == 0, done.err
    found = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    for part in ("before", "after"):
        assert found[part]["accuracy"]["n"] == 3 and found[part]["accuracy_rotated"][
            "chance"
        ] == pytest.approx(1 / 3)
    assert "accuracy_rotated" in done.err and "→" in done.err
    assert "accuracy" in (output / "evaluation.html").read_text(encoding="utf-8")
    assert "| 0.333 | 3 |" in (output / "evaluation.md").read_text(encoding="utf-8").replace("\\", "")


@pytest.mark.parametrize("task", ["sudoku", "choice=missing.jsonl"])
def test_a_task_that_cannot_be_evaluated_trains_nothing(task: str, call: Call, tmp_path: Path) -> None:
    output = tmp_path / "result"
    done = call(*sft(tmp_path, "--output", str(output), "--yes", "--eval", task, family="llama"))
    assert done.code in (2, 3) and not output.exists()
    assert ("choice=" in done.failure()[1]) is (task == "sudoku")


def test_without_the_plugin_it_is_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCHAT_PLUGINS", "llama")
    output = str(tmp_path / "result")
    done = call(*sft(tmp_path, "--output", output, "--yes", "--eval", "choice", family="llama"))
    assert done.code == 2 and "medchat eval" in done.failure()[0]


def test_metrics_of_another_shape_are_the_plugins_failure(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @hookimpl
    def medchat_evaluate(task: str, opened: object) -> dict[str, float]:
        return {"accuracy": 1.0}

    monkeypatch.setattr("medchat_eval.plugin.medchat_evaluate", medchat_evaluate)
    output = tmp_path / "result"
    done = call(*sft(tmp_path, "--output", str(output), "--yes", "--eval", "choice", family="llama"))
    assert done.code == 5 and "medchat_evaluate: " in done.err and not (output / "model.safetensors").exists()
