"""The commands that the page on training data shows do what it says, in both languages of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli_program import Call
from knowledge_files import lines_of
from locations import ROOT

pytest_plugins = ("cli_program",)


@pytest.mark.parametrize("page", ["docs/data.md", "docs/zh/data.md"])
def test_the_commands_of_the_page_run_one_after_the_other(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [*block.splitlines(), *re.findall(r"`(medchat data (?:convert|split) [^`]+)`", text)]
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(line, comments=True)
        words, target = (words[:-2], words[-1]) if words[-2] == ">" else (words, "")
        done = call(*words[1:])
        assert words[0] == "medchat" and done.code == 0, f"{line}: {done.err}"
        if target:
            Path(target).write_text(done.out, encoding="utf-8")
    assert 400 <= len(lines_of(Path("train.jsonl"))) <= 500
    assert min(len(lines_of(Path(f"part.{name}.jsonl"))) for name in ("train", "dev", "test")) > 20
    assert "messages" in lines_of(Path("chat.jsonl"))[0]
