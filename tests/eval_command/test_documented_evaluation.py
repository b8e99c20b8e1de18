"""The sequence of the page on evaluation, from knowledge to a comparison, runs as it stands on a miniature."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_program import Call, Outcome
from evaluation_results import results_of
from locations import ROOT
from medchat_eval.open_file import read_open_file

pytest_plugins = ("cli_program", "evaluated_models")


def sequence(page: str) -> list[str]:
    """Return the commands under the heading of the sequence."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(medchat data sample.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return block.splitlines()


def test_both_languages_show_the_same_sequence() -> None:
    assert sequence("docs/eval.md") == sequence("docs/zh/eval.md")


def run_line(call: Call, line: str, *more: str, **models: str) -> Outcome:
    """Run a command of the page, with the names of `models` replaced; what goes to a file goes there."""
    words = [models.get(word.replace("-", "_"), word) for word in shlex.split(line)]
    words, target = (words[:-2], words[-1]) if words[-2] == ">" else (words, "")
    done = call(*words[1:], *more)
    assert done.code == 0, f"{line}: {done.err}"
    if target:
        Path(target).write_text(done.out, encoding="utf-8")
    return done


def test_the_data_of_the_sequence_is_ready_for_training_and_for_the_test(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in sequence("docs/eval.md")[:4]:
        run_line(call, line)
    train, test = (
        [json.loads(row) for row in Path(f"part.{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("train", "test")
    )
    sources = [{one["id"] for row in rows for one in row["provenance"]["sources"]} for rows in (train, test)]
    assert len(train) > 200 and len(test) > 20 and all(sources) and not sources[0] & sources[1]
    assert all(item.reference for item in read_open_file(Path("part.test.jsonl")).items)


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
        extra = next((more[name] for name in more if name in shlex.split(line)[1:3]), ())
        printed = run_line(call, line, *extra, llama_7b=str(tiny_llama)).out
    assert "| base | tuned |" in printed and "rouge" in printed
    tuned = results_of(Path("results/tuned"))
    assert Path("results/tuned/report.html").is_file()
    assert tuned["model"]["adapter"] == ["my-lora"] and tuned["metrics"]["rouge_l"]["n"] == 3
