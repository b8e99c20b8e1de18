"""All plugins in examples/, installed by pip into one folder, through the commands that their READMEs name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from child_process import PROGRAM, TORCH
from cli_program import Outcome, run
from locations import ROOT
from plugin_sites import import_example

EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
LEFT_OVER = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
#: Backbones that write a miniature, and what has to be imported for them. Of `gguf`: tests/kit/test_gguf_example.py.
BACKBONES = {"echo": PROGRAM, "charlm": TORCH, "hf": TORCH}
QUESTION = "头痛怎么办？"
ANSWER = ("--greedy", "--max-new-tokens", "8", "--device", "cpu")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, as pip installs them; nothing is fetched, and nothing written into the tree."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("site")
    for example in EXAMPLES:
        shutil.copytree(example, sources / example.name, ignore=LEFT_OVER)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    given = [str(sources / example.name) for example in EXAMPLES]
    done = subprocess.run(
        [*command, "--target", str(folder), *given],
        capture_output=True,
        env={**os.environ, "PIP_NO_INDEX": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in BACKBONES:
        (backbone,) = import_example(f"medchat-{name}").medchat_backbones()
        backbone.tiny(folder / name, corpus=[QUESTION])
    return folder


def medchat(
    site: Path, home: Path, *words: str, stdin: str | bytes = b"", imported: str = PROGRAM
) -> Outcome:
    variables = {"MEDCHAT_HOME": str(home), "PYTHONPATH": str(site), "MEDCHAT_LANG": "en"}
    return run(*words, stdin=stdin, imported=imported, **variables)


@pytest.mark.slow
@pytest.mark.torch
def test_all_of_them_are_found_and_their_files_are_those_that_pip_installed(
    site: Path, tmp_path: Path
) -> None:
    listed = medchat(site, tmp_path, "plugins", "list", "--check", "--json", imported=TORCH)
    assert listed.code == 0, listed.err
    found = {row["distribution"] for row in listed.one()}
    assert found >= {example.name for example in EXAMPLES}


def test_their_commands_answer(site: Path, tmp_path: Path) -> None:
    assert medchat(site, tmp_path, "triage", "发热5天").out.startswith("Fever for 5 days")
    (backbone,) = import_example("medchat-echo").medchat_backbones()
    backbone.tiny(tmp_path / "echo")
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text(json.dumps({"question": QUESTION}) + "\n", encoding="utf-8")
    given = ("--data", str(questions), "--output", str(answers), "--model", str(tmp_path / "echo"))
    answered = medchat(site, tmp_path, "answers", *given)
    assert answered.code == 0, answered.err
    assert json.loads(answers.read_text(encoding="utf-8"))["answer"] == QUESTION


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_says_the_same_in_ask_in_a_chat_and_in_infer(
    site: Path, models: Path, tmp_path: Path, name: str
) -> None:
    chosen = ("--backbone", name, "--model", str(models / name), *ANSWER)
    imported = BACKBONES[name]
    asked = medchat(site, tmp_path, "ask", QUESTION, "--json", *chosen, imported=imported)
    assert asked.code == 0, asked.err
    answer = asked.one()["answer"]
    assert answer
    chatted = medchat(site, tmp_path, "chat", *chosen, stdin=f"{QUESTION}\n/exit\n", imported=imported)
    assert chatted.code == 0 and answer in chatted.out, chatted.err
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text(json.dumps({"question": QUESTION}) + "\n", encoding="utf-8")
    inferred = medchat(
        site,
        tmp_path,
        "infer",
        "--data",
        str(questions),
        "--output",
        str(answers),
        *chosen,
        imported=imported,
    )
    assert inferred.code == 0, inferred.err
    assert json.loads(answers.read_text(encoding="utf-8"))["answer"] == answer


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("name", BACKBONES)
def test_plugins_test_takes_an_installed_backbone(site: Path, tmp_path: Path, name: str) -> None:
    only = (
        "test_describe_says_what_is_loaded",
        "test_inspect_describes_the_model",
        "test_the_import_is_light",
    )
    words = [word for one in only for word in ("--only", one)]
    tested = medchat(site, tmp_path, "plugins", "test", name, *words, imported=BACKBONES[name])
    assert tested.code == 0, tested.out + tested.err
    assert f"{name}: 3 hold" in tested.out
