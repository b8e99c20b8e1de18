"""The original projects' own data, on miniatures in the layout of the published weights. Long: run by hand.

pytest -m slow tests/test_sft_real_data.py -s     prints the figures
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from method_runs import BACKBONES, hashes, load, loading, options, recipe
from sft_fixtures import Watcher

from medchat.api import Example, GenerationConfig, LoadOptions, PromptTemplate, SFTData, SFTOptions
from medchat.sft.data import read_training_data
from medchat.templates import load_template
from medchat.torchside.chat_model import TokenChatModel
from medchat.torchside.sft.features import prompt_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SHARED = Path(os.environ.get("MEDCHAT_SHARED") or Path(__file__).resolve().parents[2] / "shared")
STEPS = 100
#: So many records an adapter learns by heart. A miniature knows too little for it to learn from thousands:
#: what falls there is the difference between one batch and another.
RECORDS = 64
RATES = {"full": 5e-3, "lora": 1e-2, "qlora": 1e-2, "adapter": 3e-2, "ptuning": 3e-1}
#: Family, method, data, form ("" is the family's own), what else differs.
RUNS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("chatglm", "full", "med_chatglm_train.txt", "", {}),
    ("chatglm", "full", "med_chatglm_train.txt", "", {"collator": "med"}),
    ("chatglm", "full", "med_chatglm_train.txt", "", {"collator": "official"}),
    ("chatglm", "lora", "med_chatglm_train.txt", "", {}),
    ("chatglm", "ptuning", "med_chatglm_train.txt", "", {}),
    ("llama", "full", "llama_data.json", "", {}),
    ("llama", "lora", "llama_data.json", "", {}),
    ("llama", "qlora", "llama_data.json", "", {}),
    ("llama", "adapter", "llama_data.json", "", {}),
    ("llama", "ptuning", "llama_data.json", "", {}),
    ("llama", "lora", "liver_cancer.json", "literature_template", {"max_length": 1024}),
    ("bloom", "lora", "llama_data.json", "", {}),
    ("bloom", "qlora", "llama_data.json", "", {}),
    ("bloom", "adapter", "llama_data.json", "", {}),
    ("huozi", "full", "llama_data.json", "", {}),
    ("huozi", "lora", "llama_data.json", "", {}),
]
#: By how much the mean loss of the learned tokens must fall, by chat's own scores before and after.
FALLS = {"full": 1.0, "adapter": 0.05}
LEAST_FALL = 0.1
#: What an adapter is trained over has learned something first, on the other data of the same kind.
FIRST = {"chatglm": "llama_data.json", "llama": "med_chatglm_train.txt", "bloom": "med_chatglm_train.txt"}


def examples(name: str) -> tuple[Example, ...]:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return tuple(read_training_data(path).examples)


def settings(family: str, folder: Path, method: str, **changes: Any) -> SFTOptions:
    common = {
        "max_steps": STEPS,
        "batch_size": 16,
        "micro_batch_size": 16,
        "max_length": 512,
        "logging_steps": 10,
        "samples": 2,
        "warmup_ratio": 0.05,
        "adam_epsilon": 1e-8,
        "pre_seq_len": 16,
    }
    return options(family, folder, method, **{**common, **changes})


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Return a function to the folder whose `base` is a family's miniature, random or taught a little."""

    @cache
    def folder(family: str, taught: bool) -> Path:
        path = tmp_path_factory.mktemp(f"{family}-{'taught' if taught else 'random'}")
        if not taught:
            data = [*examples("llama_data.json")[:600], *examples("liver_cancer.json")[:200]]
            texts = [text for one in data for text in (one.question, one.answer)]
            BACKBONES[family].tiny(path / "base", corpus=texts, vocabulary_size=4000)
            return path
        first = settings(family, folder(family, False), "full", output=path / "base", samples=0)
        name = FIRST.get(family, "med_chatglm_train.txt")
        recipe(family, "full").run(SFTData(examples(name)), replace(first, max_steps=3 * STEPS), Watcher())
        return path

    return folder


def mean_loss(loaded: TokenChatModel, form: PromptTemplate, data: Sequence[Example]) -> float:
    """What chat makes of the answers: minus the mean log-probability of their tokens, end tokens included."""
    scores = [score for one in data for score in loaded.score(prompt_of(one, form), one.answer)]
    return -sum(scores) / len(scores)


@pytest.mark.parametrize(("family", "method", "name", "form", "changes"), RUNS)
def test_published_records_are_learned_as_chat_itself_scores_them(
    family: str,
    method: str,
    name: str,
    form: str,
    changes: dict[str, Any],
    tmp_path: Path,
    bases: Callable[[str, bool], Path],
) -> None:
    whole, backbone = examples(name), BACKBONES[family]
    shutil.copytree(bases(family, method != "full") / "base", tmp_path / "base")
    before = hashes(tmp_path / "base")
    template = load_template(form) if form else None
    steps = STEPS if method == "full" else 2 * STEPS
    wanted = settings(family, tmp_path, method, learning_rate=RATES[method], max_steps=steps, **changes)
    wanted = replace(wanted, lora_dropout=0.0, allow_truncation=True)
    shown = recipe(family, method).survey(SFTData(whole, template=template), wanted)
    assert shown.records == len(whole)
    data = whole if method == "full" else whole[:RECORDS]
    report = recipe(family, method).run(SFTData(data, template=template), wanted, Watcher())
    assert hashes(tmp_path / "base") == before

    tuned = loading(tmp_path, report)
    chat, asked = load(family, tuned), backbone.template(tuned)
    plain = load(family, LoadOptions(tmp_path / "base", device="cpu", dtype="float32"))
    learned = [one for one in data[:32] if chat.count(prompt_of(one, asked)) < 1024]
    first, last = mean_loss(plain, asked, learned), mean_loss(chat, asked, learned)
    print(f"\n{family} {method} {changes or ''} {name}: {shown.records} records, {report.examples} learned, "
          f"{report.steps} steps, {report.seconds:.0f} s, loss of chat {first:.3f} -> {last:.3f}, "
          f"trained {report.trainable_parameters} of {report.parameters}")  # fmt: skip
    assert last < first - FALLS.get(method, LEAST_FALL)
    # Drawn with one seed: the greedy answers of such small models are one word over and over.
    config = GenerationConfig(temperature=1.0, top_p=1.0, seed=7, max_new_tokens=24)
    prompts = [prompt_of(one, asked) for one in learned[:8]]
    assert chat.generate_batch(prompts, config) != plain.generate_batch(prompts, config)
