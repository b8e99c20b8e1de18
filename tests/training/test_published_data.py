"""The original projects' own data through the scripts, on miniatures in the layout of the published weights.

Long: run by hand.  pytest -m slow tests/training/test_published_data.py -s  prints the figures
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from child_process import child_environment
from cli_program import Call
from locations import ROOT, SHARED
from method_runs import BACKBONES, hashes, load, loading, options, recipe
from script_runs import program
from sft_watcher import Watcher

from medchat.api import Example, LoadOptions, PromptTemplate, SFTData
from medchat.inference.adapters.lora import attached, merge
from medchat.inference.chat_model import TokenChatModel
from medchat.sft_job.data import read_training_data
from medchat.sft_job.facts import read_facts
from medchat.training.features import prompt_of

pytest_plugins = ("cli_program",)
pytestmark = [pytest.mark.torch, pytest.mark.slow]

MED, KNOWLEDGE, LITERATURE = "med_chatglm_train.txt", "llama_data.json", "liver_cancer.json"
#: Rates at which a miniature learns something in some dozen steps.
RATES = {"full": 5e-3, "lora": 1e-2, "qlora": 1e-2, "adapter": 1e-2, "ptuning": 1e-1}
#: By how much the held-out loss must fall; measured: docs/measurements.md.
FALLS = {"full": 1.5, "lora": 0.25, "qlora": 0.25, "adapter": 0.3, "ptuning": 0.15}
STEPS = 100
#: What a frozen miniature has learned before: something else, so that there is something left to learn.
FIRST = {MED: LITERATURE, KNOWLEDGE: LITERATURE, LITERATURE: MED}


@dataclass(frozen=True)
class Run:
    """One script on one data file. `backbone` is what `BACKBONE` names, "" for `sft_medchat.sh`."""

    backbone: str
    method: str
    data: str
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.backbone or "chatglm", self.method, *self.flags, self.data])

    @property
    def script(self) -> str:
        return "finetune.sh" if self.backbone else "sft_medchat.sh"

    @property
    def family(self) -> str:
        return {"": "chatglm", "alpaca": "llama"}.get(self.backbone, self.backbone)


RUNS = [
    Run("", "full", MED),
    Run("", "full", MED, ("--collator", "med")),
    Run("", "full", MED, ("--collator", "official")),
    Run("", "lora", MED),
    Run("", "ptuning", MED, ("--pre-seq-len", "16")),
    Run("", "adapter", MED),
    Run("llama", "lora", KNOWLEDGE),
    Run("llama", "qlora", KNOWLEDGE),
    Run("llama", "adapter", KNOWLEDGE),
    Run("llama", "ptuning", KNOWLEDGE, ("--pre-seq-len", "16")),
    Run("llama", "full", KNOWLEDGE),
    Run("llama", "lora", LITERATURE, ("--max-length", "1024"), {"TEMPLATE": "literature_template"}),
    Run("alpaca", "lora", KNOWLEDGE),
    Run("bloom", "lora", KNOWLEDGE),
    Run("bloom", "qlora", KNOWLEDGE),
    Run("bloom", "adapter", KNOWLEDGE),
    Run("huozi", "lora", KNOWLEDGE),
    Run("huozi", "full", KNOWLEDGE),
]

Bases = Callable[[str, str], Path]


def examples(name: str) -> tuple[Example, ...]:
    """Return the records of a published file, skipping the test where it is not on this machine."""
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return tuple(read_training_data(path).examples)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Return a function to a miniature of a family: random, or taught the records of a file."""

    @cache
    def folder(family: str, taught: str) -> Path:
        path = tmp_path_factory.mktemp(f"{family}-{taught or 'random'}")
        if not taught:
            data = [*examples(KNOWLEDGE)[:600], *examples(LITERATURE)[:200]]
            texts = [text for one in data for text in (one.question, one.answer)]
            BACKBONES[family].tiny(path / "base", corpus=texts, vocabulary_size=4000)
            return path / "base"
        changes: dict[str, Any] = {
            "max_steps": 3 * STEPS,
            "batch_size": 16,
            "micro_batch_size": 16,
            "max_length": 512,
            "warmup_ratio": 0.05,
            "adam_epsilon": 1e-8,
        }
        first = options(family, path, "full", model=folder(family, ""), output=path / "base", **changes)
        recipe(family, "full").run(SFTData(examples(taught)), first, Watcher())
        return path / "base"

    return folder


def trained(run: Run, base: Path, output: Path, programs: Path) -> str:
    """Run the script to its end, as a user does; return what it said on stderr."""
    folder = program(programs, f'exec "{sys.executable}" -m medchat "$@"')
    words = ["--method", run.method, "--learning-rate", str(RATES[run.method]), "--max-steps", str(STEPS)]
    words += [
        "--batch-size",
        "16",
        "--micro-batch-size",
        "16",
        "--warmup-ratio",
        "0.05",
        "--adam-epsilon",
        "1e-8",
    ]
    words += ["--max-length", "512", "--lora-dropout", "0", "--val-size", "200", "--save-steps", "-1"]
    words += ["--eval-steps", "20", "--samples", "2", "--device", "cpu", "--precision", "float32"]
    words += ["--allow-truncation", *run.flags]
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    where = {"MODEL": str(base), "DATA": str(SHARED / "data" / run.data), "OUTPUT": str(output)}
    alone = {"NPROC": "", "NNODES": "", "MASTER_ADDR": "", "BACKBONE": run.backbone, "PATH": path}
    ended = subprocess.run(
        ["sh", str(ROOT / "scripts" / run.script), *words],
        env=child_environment(**where, **alone, **run.environment),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def chat_loss(loaded: TokenChatModel, form: PromptTemplate, data: Sequence[Example]) -> float:
    """What chat makes of the answers: minus the mean log-probability of their tokens, end tokens included."""
    scores = [score for one in data for score in loaded.score(prompt_of(one, form), one.answer)]
    return -sum(scores) / len(scores)


def last_logits(loaded: TokenChatModel, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits [V] behind a prompt."""
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_script_learns_a_published_file_and_chat_answers_by_it(
    run: Run, tmp_path: Path, bases: Bases, call: Call
) -> None:
    family, whole = run.family, examples(run.data)
    base, output = tmp_path / "base", tmp_path / "output"
    if run.backbone == "alpaca":
        # The published layout with Chinese-Alpaca's own vocabulary.
        shutil.copytree(SHARED / "goldens" / "seed-stack" / "alpaca" / "base", base)
    else:
        shutil.copytree(bases(family, "" if run.method == "full" else FIRST[run.data]), base)
    before = hashes(base)
    said = trained(run, base, output, tmp_path / "bin")
    assert said.startswith(f"+ medchat sft --backbone {family} ")
    assert hashes(base) == before

    facts, report = read_facts(output)
    assert report is not None and report.best_loss is not None and report.loss_before is not None
    print(f"\n{run}: {report.examples} records, {report.seconds:.0f} s, held-out loss {report.loss_before:.3f} -> "
          f"{report.best_loss:.3f}, trained {report.trainable_parameters} of {report.parameters}")  # fmt: skip
    assert facts.train + facts.held_out + sum(one.bad for one in facts.data) == len(whole)
    assert report.best_loss < report.loss_before - FALLS[run.method]
    losses = [
        row for row in map(json.loads, (output / "metrics.jsonl").read_text().splitlines()) if "loss" in row
    ]
    assert losses[0]["step"] == 1 and losses[-1]["step"] == STEPS and losses[-1]["loss"] < losses[0]["loss"]

    # The loader of chat, told nothing but the folder, scores the records better than before.
    tuned = loading(tmp_path, report)
    chat, asked = load(family, tuned), BACKBONES[family].template(tuned)
    plain = load(family, LoadOptions(base, device="cpu", dtype="float32"))
    scored = [one for one in whole[:64] if chat.count(prompt_of(one, asked)) < 512]
    first, last = chat_loss(plain, asked, scored), chat_loss(chat, asked, scored)
    print(f"{run}: loss of chat {first:.3f} -> {last:.3f}")
    assert last < first

    if run.method in ("lora", "qlora"):
        prompts = [chat.tokenizer.build_prompt(prompt_of(one, asked)) for one in scored[:4]]
        apart = [last_logits(chat, ids) for ids in prompts]
        (name,) = attached(chat.model)
        assert merge(chat.model, name)
        merged = [last_logits(chat, ids) for ids in prompts]
        torch.testing.assert_close(merged, apart, atol=1e-4, rtol=1e-4)

    # And so do answers, drawn with one seed: the greedy ones of such small models are one word over and over.
    questions = "\n".join(one.question.replace("\n", " ") for one in scored[:4])
    flags = ("--backbone", family, "--device", "cpu", "--seed", "7", "--max-new-tokens", "24", "--no-save")
    flags += ("--history", "none", "--temperature", "1.0", "--top-p", "1.0")
    result = (
        ("--model", str(output))
        if report.kind == "model"
        else ("--model", str(base), "--adapter", str(output))
    )
    told = [call("chat", *flags, *which, stdin=questions) for which in (result, ("--model", str(base)))]
    assert [one.code for one in told] == [0, 0], told[0].err + told[1].err
    assert told[0].out and told[0].out != told[1].out
