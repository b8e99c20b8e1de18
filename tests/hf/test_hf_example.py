"""The example plugin for chat models of transformers, through the program."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from child_process import TORCH
from cli_program import Outcome, run
from locations import ROOT
from plugin_packages import write_distribution

from medchat.hf.tiny import write_tiny_transformer

pytestmark = pytest.mark.torch
EXAMPLE = ROOT / "examples" / "medchat-hf"
QUESTION = "头痛怎么办？"
ANSWER = ("--greedy", "--max-new-tokens", "6", "--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = {path.stem: path.read_text(encoding="utf-8") for path in EXAMPLE.glob("*.py")}
    write_distribution(folder, project["name"], project["entry-points"], modules, version=project["version"])
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "qwen"
    write_tiny_transformer(path, model_type="qwen2")
    return path


def medchat(site: Path, home: Path, *arguments: str) -> Outcome:
    return run(
        *arguments,
        imported=TORCH,
        MEDCHAT_HOME=str(home),
        PYTHONPATH=str(site),
        MEDCHAT_LANG="en",
    )


def test_it_answers(site: Path, qwen: Path, tmp_path: Path) -> None:
    asked = ask(site, qwen, tmp_path)
    assert len(asked) >= 1


def ask(site: Path, model: Path, home: Path, *more: str) -> str:
    words = ("--json", "--backbone", "hf", "--model", str(model), *more, *ANSWER)
    asked = medchat(site, home, "ask", QUESTION, *words)
    assert asked.code == 0, asked.err
    answer: str = asked.one()["answer"]
    return answer


@pytest.mark.slow
def test_it_fine_tunes_until_its_answer_is_the_one_learned(site: Path, qwen: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    records: list[Mapping[str, str]] = [{"instruction": QUESTION, "output": "多休息"}] * 8
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    trained = tmp_path / "trained"
    done = medchat(
        site, tmp_path / "a", "sft", "--backbone", "hf", "--model", str(qwen), "--data", str(data),
        "--output", str(trained), "--method", "lora", "--learning-rate", "0.05", "--num-epochs", "8",
        "--batch-size", "4", "--micro-batch-size", "4", "--precision", "float32", "--device", "cpu", "--yes",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert ask(site, qwen, tmp_path / "b", "--adapter", str(trained)) == "多休息"
    assert not list(trained.glob("*.bin"))
