"""Adapters over LLaMA: vocabularies they bring, forms they were trained on, bases they belong to."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_program import Call
from llama_checkpoints import QUESTION, grow, load, logits, lora, published
from medchat_llama import folder as llama_folder
from medchat_llama.backbone import LlamaBackbone
from medchat_llama.loading import LLAMA
from medchat_llama.tiny import write_tiny_llama
from refusals import refused

from medchat.api import Finish, GenerationConfig, LoadOptions, Turn
from medchat.checkpoints.published_adapters import KNOWN_ADAPTERS

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "tiny"
    write_tiny_llama(path)
    return path


# ---------------------------------------------------------------- adapters


def test_an_unmerged_vocabulary_adapter_is_merged_on_loading(tiny: Path, tmp_path: Path) -> None:
    expected = logits(grow(tiny, tmp_path / "grown"))
    loaded = load(tiny, tmp_path / "grown")
    torch.testing.assert_close(logits(loaded.model), expected, atol=1e-5, rtol=1e-4)
    assert loaded.tokenizer.size == loaded.model.config.vocab_size == load(tiny).tokenizer.size + 20
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())


@pytest.mark.parametrize("first", [True, False])
def test_an_adapter_goes_on_top_of_the_vocabulary_one_in_either_order(
    tiny: Path, tmp_path: Path, first: bool
) -> None:
    merged = grow(tiny, tmp_path / "grown").merge_and_unload()
    expected = logits(lora(merged, tmp_path / "med", 10))
    folders = [tmp_path / "grown", tmp_path / "med"]
    loaded = load(tiny, *(folders if first else reversed(folders)))
    torch.testing.assert_close(logits(loaded.model), expected, atol=1e-5, rtol=1e-4)


def test_over_quantised_weights_the_vocabulary_adapter_stays_laid_over(tiny: Path, tmp_path: Path) -> None:
    """Packed integers cannot take a delta in."""
    merged = grow(tiny, tmp_path / "grown").merge_and_unload()
    expected = logits(lora(merged, tmp_path / "med", 10))
    loaded = load(tiny, tmp_path / "med", tmp_path / "grown", quantize="int8")
    assert loaded.tokenizer.size == loaded.model.config.vocab_size
    difference = (logits(loaded.model) - expected).abs().max()
    assert 0 < difference < 0.02 * expected.abs().max()


def test_a_vocabulary_adapter_with_the_old_vocabulary_is_refused_naming_both(
    tiny: Path, tmp_path: Path
) -> None:
    grow(tiny, tmp_path / "grown")
    (tmp_path / "grown" / "tokenizer.model").unlink()
    error = refused(lambda: load(tiny, tmp_path / "grown"))
    assert str(tiny / "tokenizer.model") in error.what and str(tmp_path / "grown") in error.what


def test_two_vocabularies_or_half_of_one_are_refused(tiny: Path, tmp_path: Path) -> None:
    grow(tiny, tmp_path / "grown")
    shutil.copytree(tmp_path / "grown", tmp_path / "again")
    refused(lambda: load(tiny, tmp_path / "grown", tmp_path / "again"))
    lora(load(tiny).model, tmp_path / "half", 3, modules_to_save=["lm_head"])
    assert "lm_head" in refused(lambda: load(tiny, tmp_path / "half")).what


def test_an_adapter_of_another_size_is_refused_before_the_weights_are_read(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_llama(tmp_path / "wide", hidden_size=32)
    lora(load(tmp_path / "wide").model, tmp_path / "med", 3)
    monkeypatch.setattr(
        "medchat.inference.causal_loading.assign", lambda *_: pytest.fail("weights were read")
    )
    assert "32x32" in refused(lambda: load(tiny, tmp_path / "med")).what


def test_only_with_an_adapter_does_the_unknown_id_end_an_answer(tiny: Path, tmp_path: Path) -> None:
    """BenTsao's were trained by a tokenizer whose every special id was 0."""
    lora(load(tiny).model, tmp_path / "med", 3)
    grow(tiny, tmp_path / "grown")
    for adapters, stops in (((), {2}), (("med",), {0, 2}), (("grown",), {2}), (("grown", "med"), {0, 2})):
        folders = tuple(tmp_path / name for name in adapters)
        model = LLAMA.chat(LoadOptions(tiny, adapters=folders, device="cpu", dtype="float32"))
        assert model.limits.stop_ids == stops


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("name", "config", "template"),
    [
        ("lora-llama-med", {}, "med_template"),
        ("lora-llama-literature", {}, "literature_template"),
        ("lora-alpaca-med", {}, "med_template"),
        ("lora-alpaca-med-alldata", {}, "med_alldata"),
        ("somebodys", {}, "med_template"),
        ("ours", {"medchat_template": "literature_template"}, "literature_template"),
        ("ours", {"medchat_template": "no_such_form"}, "med_template"),
        ("ours", {"medchat_template": "/etc/hostname"}, "med_template"),
        ("ours", {"medchat_template": ["med_template"]}, "med_template"),
    ],
)
def test_an_adapter_brings_the_form_it_was_trained_on(
    tiny: Path, tmp_path: Path, name: str, config: dict[str, Any], template: str
) -> None:
    options = LoadOptions(tiny, adapters=(published(tmp_path / name, tiny, **config),))
    assert LlamaBackbone().template(options).name == template


def test_the_two_tables_of_published_adapters_agree() -> None:
    """One is for `models list` and `pull`, the other tells a folder's identity by its weights."""
    listed = {weights.name: weights for weights in LlamaBackbone().known_weights if weights.kind == "adapter"}
    known = {adapter.name: adapter for adapter in KNOWN_ADAPTERS}
    assert {name for name in listed if name.startswith("lora-")} <= set(known)
    for name in set(listed) & set(known):
        assert (listed[name].template, listed[name].repository) == (known[name].template, known[name].source)
        assert any(base.startswith(known[name].base) for base in listed[name].fits)


def test_without_an_adapter_the_base_decides(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = LlamaBackbone().template
    grow(tiny, tmp_path / "grown")
    rows = load(tiny).tokenizer.size
    assert form(LoadOptions(tiny)).name == "ori_template"
    monkeypatch.setitem(llama_folder.BASE_OF_ROWS, rows + 20, "chinese-alpaca")  # type: ignore[arg-type]
    assert form(LoadOptions(tiny, adapters=(tmp_path / "grown",))).name == "alpaca"
    monkeypatch.setitem(llama_folder.BASE_OF_ROWS, rows, "chinese-alpaca")  # type: ignore[arg-type]
    assert form(LoadOptions(tiny)).name == "alpaca"


def test_the_form_of_all_data_is_single_first_and_a_dialogue_after(tiny: Path, tmp_path: Path) -> None:
    options = LoadOptions(tiny, adapters=(published(tmp_path / "lora-alpaca-med-alldata", tiny),))
    form = LlamaBackbone().template(options)
    assert form.multi_turn
    first, later = form.render((), QUESTION), form.render((Turn("头痛？", "休息。"),), QUESTION)
    assert "".join(part.text for part in first).startswith("下面是一个问题")  # type: ignore[union-attr]
    text = "".join(part.text for part in later)  # type: ignore[union-attr]
    assert f"<user>: 头痛？ <bot>: 休息。 <user>: {QUESTION}\n\n### 回复:" in text


# ---------------------------------------------------------------- the program


def test_ask_chat_and_show_work_on_a_miniature_with_an_adapter(
    call: Call, tiny: Path, tmp_path: Path
) -> None:
    lora(load(tiny).model, tmp_path / "med", 3)
    flags = [
        "--model",
        str(tiny),
        "--adapter",
        str(tmp_path / "med"),
        "--dtype",
        "float32",
        "--device",
        "cpu",
    ]
    asked = call("ask", QUESTION, *flags, "--greedy", "--max-new-tokens", "8", "--json")
    assert asked.code == 0, asked.err
    answer = asked.one()
    assert (answer["backbone"], answer["template"]) == ("llama", "med_template")
    model = LLAMA.chat(LoadOptions(tiny, adapters=(tmp_path / "med",), device="cpu", dtype="float32"))
    segments = LlamaBackbone().template(LoadOptions(tiny, adapters=(tmp_path / "med",))).render((), QUESTION)
    config = GenerationConfig(greedy=True, max_new_tokens=8)
    deltas = list(model.stream(segments, config, threading.Event()))
    assert answer["answer"] == "".join(delta.text for delta in deltas)
    assert deltas[-1].finish in (Finish.LENGTH, Finish.STOP)
    chatted = call("chat", *flags, "--max-new-tokens", "8", stdin=f"{QUESTION}\n谢谢\n")
    assert chatted.code == 0, chatted.err
    shown = call("models", "show", str(tiny), "--json")
    assert (shown.code, shown.one()["backbone"]) == (0, "llama")


@pytest.mark.parametrize(
    ("name", "rows_base", "words"),
    [("lora-alpaca-med", "llama", "Chinese-Alpaca-7B"), ("lora-llama-med", "chinese-alpaca", "LLaMA-7B")],
)
def test_a_known_adapter_on_the_other_base_ends_the_program_with_3(
    call: Call,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    rows_base: str,
    words: str,
) -> None:
    rows = load(tiny).tokenizer.size
    monkeypatch.setitem(llama_folder.BASE_OF_ROWS, rows, rows_base)  # type: ignore[arg-type]
    folder = published(tmp_path / name, tiny)
    outcome = call("ask", QUESTION, "--model", str(tiny), "--adapter", str(folder), "--device", "cpu")
    assert (outcome.code, outcome.out) == (3, "")
    what, remedy = outcome.failure()
    assert name in what and words in what and "--model" in remedy
