"""The original projects' own data, on miniatures in the layout of the published weights. Long: run by hand.

pytest -m slow tests/test_sft_real_data.py -s     prints the losses
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from method_runs import BACKBONES, hashes, load, loading, options, recipe
from sft_fixtures import Watcher

from medchat.api import Example, GenerationConfig, LoadOptions, SFTData, SFTOptions
from medchat.sft.data import read_training_data
from medchat.templates import load_template
from medchat.torchside.sft.features import prompt_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SHARED = Path(os.environ.get("MEDCHAT_SHARED") or Path(__file__).resolve().parents[2] / "shared")
STEPS = 100
#: Family, method, data, form ("" is the family's own), what else differs, and to what share of its
#: beginning the loss must fall.
RUNS: list[tuple[str, str, str, str, dict[str, Any], float]] = [
    ("chatglm", "full", "med_chatglm_train.txt", "", {}, 0.8),
    ("chatglm", "full", "med_chatglm_train.txt", "", {"collator": "med"}, 0.8),
    ("chatglm", "full", "med_chatglm_train.txt", "", {"collator": "official"}, 0.8),
    ("chatglm", "lora", "med_chatglm_train.txt", "", {}, 0.98),
    ("chatglm", "ptuning", "med_chatglm_train.txt", "", {}, 0.98),
    ("llama", "full", "llama_data.json", "", {}, 0.8),
    ("llama", "lora", "llama_data.json", "", {}, 0.98),
    ("llama", "qlora", "llama_data.json", "", {}, 0.98),
    ("llama", "adapter", "llama_data.json", "", {"adapter_size": 64}, 0.98),
    ("llama", "ptuning", "llama_data.json", "", {}, 0.98),
    ("llama", "lora", "liver_cancer.json", "literature_template", {"max_length": 1024}, 0.98),
    ("bloom", "lora", "llama_data.json", "", {}, 0.98),
    ("bloom", "qlora", "llama_data.json", "", {}, 0.98),
    ("bloom", "adapter", "llama_data.json", "", {"adapter_size": 64}, 0.98),
    ("huozi", "full", "llama_data.json", "", {}, 0.8),
    ("huozi", "lora", "llama_data.json", "", {}, 0.98),
]
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


@pytest.mark.parametrize(("family", "method", "name", "form", "changes", "falls"), RUNS)
def test_the_loss_falls_on_the_published_data_and_the_answers_change(
    family: str,
    method: str,
    name: str,
    form: str,
    changes: dict[str, Any],
    falls: float,
    tmp_path: Path,
    bases: Callable[[str, bool], Path],
) -> None:
    data, backbone = examples(name), BACKBONES[family]
    shutil.copytree(bases(family, method != "full") / "base", tmp_path / "base")
    before = hashes(tmp_path / "base")
    wanted = settings(family, tmp_path, method, **changes)
    watcher = Watcher()
    template = load_template(form) if form else None
    report = recipe(family, method).run(SFTData(data, data[:32], template), wanted, watcher)
    losses = [row.loss for row in watcher.progress]
    last = sum(losses[-3:]) / 3
    print(f"\n{family} {method} {name}: {report.examples} examples, {report.steps} steps, {report.seconds:.0f} s, "
          f"loss {losses[0]:.3f} -> {last:.3f}, held out {report.best_loss}, "
          f"trained {report.trainable_parameters} of {report.parameters}")  # fmt: skip
    assert last < falls * losses[0]
    assert hashes(tmp_path / "base") == before
    chat, form_of_chat = load(family, loading(tmp_path, report)), backbone.template(loading(tmp_path, report))
    plain = load(family, LoadOptions(tmp_path / "base", device="cpu", dtype="float32"))
    prompts = [prompt_of(one, form_of_chat) for one in data[:8]]
    # Drawn with one seed: the greedy answers of such small models are one word over and over.
    config = GenerationConfig(temperature=1.0, top_p=1.0, seed=7, max_new_tokens=24)
    assert chat.generate_batch(prompts, config) != plain.generate_batch(prompts, config)
    # The learned answers have become likelier, in the very form that chat asks in.
    # The end token is left out: the answers are cut short here.
    likelier = sum(
        sum(chat.score(prompt, one.answer[:50])[:-1]) > sum(plain.score(prompt, one.answer[:50])[:-1])
        for prompt, one in zip(prompts, data, strict=False)
    )
    assert likelier >= 7
