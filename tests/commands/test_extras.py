"""Without the packages of an extra: every page of help is there, and commands that need them say what to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from child_process import child_environment
from command_tree import tree_of_commands

HIDDEN = ("starlette", "uvicorn", "gguf", "jieba", "sacrebleu", "datasketch")
#: Runs command lines in an interpreter where those packages are not installed, and prints their exit codes.
PROGRAM = """
import importlib.machinery, json, sys
hidden, lines = json.loads(sys.argv[1])

class WithoutExtras:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name in hidden else importlib.machinery.PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = WithoutExtras
from medchat.cli.program import run
print(json.dumps([run(words, language="zh", debug=False) for words in lines]), file=sys.stderr)
"""


def run_without(*lines: list[str], folder: Path) -> tuple[list[int], str]:
    """Return the exit codes, and all that was said."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([HIDDEN, lines])],
        capture_output=True,
        text=True,
        cwd=folder,
        env=child_environment(MEDCHAT_HOME=str(folder)),
    )
    assert ended.returncode == 0, ended.stderr
    *said, codes = ended.stderr.splitlines()
    return json.loads(codes), "\n".join(said)


def test_every_command_has_its_page_of_help_without_them(tmp_path: Path) -> None:
    pages = [
        [*names, "--help"] for names in tree_of_commands() if names[0] in ("data", "eval", "export", "serve")
    ]
    codes, said = run_without(*pages, folder=tmp_path)
    assert len(codes) > 20 and set(codes) == {0}, said


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("serve", ["serve", "--model", "m"]),
        ("export", ["export", "gguf", "--model", "m", "--output", "o"]),
        ("export", ["export", "ollama", "--model", "m", "--output", "o"]),
        ("data", ["data", "dedup", "d.jsonl"]),
        ("eval", ["eval", "text", "--model", "m", "--output", "o"]),
    ],
)
def test_a_command_that_needs_them_names_the_extra(extra: str, words: list[str], tmp_path: Path) -> None:
    records = [{"instruction": f"问题{number}", "output": "答"} for number in range(2)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    codes, said = run_without(words, folder=tmp_path)
    assert codes == [2] and f"pip install 'medchat[{extra}]'" in said, said
