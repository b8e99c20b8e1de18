"""The sequence of the page on evaluation, from knowledge to a comparison, runs as it stands on a miniature."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_program import Call
from locations import ROOT

pytest_plugins = ("cli_program", "evaluated_models")


def sequence(page: str) -> list[str]:
    """Return the commands under the heading of the sequence."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(medchat data sample.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return block.splitlines()


def test_both_languages_show_the_same_sequence() -> None:
    assert sequence("docs/eval.md") == sequence("docs/zh/eval.md")


@pytest.mark.slow
@pytest.mark.torch
def test_the_sequence_of_the_page_ends_in_a_comparison(
    call: Call, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # So that a miniature is done in time; everything else is as the page says.
    more = {
        "sft": ("--num-epochs", "1", "--max-length", "256", "--samples", "0"),
        "text": ("--limit", "3", "--max-new-tokens", "4"),
    }
    printed = ""
    for line in sequence("docs/eval.md"):
        words = [str(tiny_llama) if word == "llama-7b" else word for word in shlex.split(line)]
        words, target = (words[:-2], words[-1]) if words[-2] == ">" else (words, "")
        extra = next((more[name] for name in more if name in words[1:3]), ())
        done = call(*words[1:], *extra)
        assert done.code == 0, f"{line}: {done.err}"
        printed = done.out
        if target:
            Path(target).write_text(done.out, encoding="utf-8")
    assert "| base | tuned |" in printed and "rouge" in printed
    tuned = json.loads(Path("results/tuned/results.json").read_text(encoding="utf-8"))
    assert tuned["model"]["adapter"] == ["my-lora"] and tuned["metrics"]["rouge_l"]["n"] == 3
