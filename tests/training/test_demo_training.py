"""The demo's miniature, built and trained as `medchat demo` does it, knows its own answers by heart."""

from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from medchat_chatglm.backbone import ChatGLMBackbone
from sft_watcher import Watcher

from medchat.api import Example, GenerationConfig, LoadOptions, SFTData
from medchat.demo_data import demo_examples
from medchat.demo_recipe import DEMO_RECIPES

RECIPE = DEMO_RECIPES["chatglm"]
GREEDY = GenerationConfig(greedy=True, max_new_tokens=96)


@pytest.mark.torch
@pytest.mark.slow
def test_the_trained_demo_gives_its_answers_word_for_word(tmp_path: Path) -> None:
    pairs, backbone = demo_examples(), ChatGLMBackbone()
    corpus = [text for pair in pairs for text in (pair.question, pair.answer)]
    backbone.tiny(tmp_path / "base", corpus=corpus, seed=RECIPE.seed, **RECIPE.shape)
    watcher = Watcher()
    report = backbone.recipes["full"].run(
        SFTData([Example(pair.question, pair.answer) for pair in pairs]),
        RECIPE.options(tmp_path / "base", tmp_path / "out"),
        watcher,
    )
    progress = watcher.progress
    assert progress[-1].step == report.steps == progress[-1].total_steps
    assert report.last_loss < 0.1 < report.first_loss
    # Demos are seen: a bar that moves at least every other second of a minute.
    assert len(progress) >= 30

    load = LoadOptions(tmp_path / "out", device="cpu", dtype="float32")
    model, template = backbone.load(load), backbone.template(load)
    prompts = [template.render((), pair.question) for pair in pairs]
    completions = model.generate_batch(prompts, GREEDY)
    exact = sum(one.text == pair.answer for one, pair in zip(completions, pairs, strict=True))
    assert exact >= 0.95 * len(pairs), f"{exact} of {len(pairs)} in {report.seconds:.0f} s"

    streamed = [model.stream(prompt, GREEDY, threading.Event()) for prompt in prompts[:5]]
    texts = ["".join(delta.text for delta in deltas) for deltas in streamed]
    assert texts == [completion.text for completion in completions[:5]]


def test_any_changed_setting_changes_the_fingerprint() -> None:
    fingerprints = {
        recipe.fingerprint
        for recipe in (
            RECIPE,
            replace(RECIPE, seed=RECIPE.seed + 1),
            replace(RECIPE, epochs=RECIPE.epochs + 1),
            replace(RECIPE, shape={**RECIPE.shape, "num_layers": 5}),
        )
    }
    assert len(fingerprints) == 4
    assert RECIPE.fingerprint == replace(RECIPE).fingerprint


def test_the_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPE.seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        RECIPE.shape["num_layers"] = 9  # type: ignore[index]
