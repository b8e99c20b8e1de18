"""Huozi as a user meets it: what is recognised as one, how answers end and look, and the commands."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from bloom_adapters import write_adapter
from cli_program import Call
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_bloom.huozi.loading import HUOZI_LOADING
from medchat_bloom.huozi.prompts import HUOZI
from medchat_bloom.tiny import write_tiny_bloom
from medchat_bloom.tokenizer import BloomTokenizer
from safetensors.torch import load_file, save_file

from medchat.api import ChatModel, Finish, GenerationConfig, LoadOptions
from medchat.errors import CheckpointError

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

B, E = "<|beginofutterance|>", "<|endofutterance|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("huozi") / "huozi-7b-sft"
    HuoziBackbone().tiny(path, hidden_size=32)
    return path


def saying(path: Path, words: str, end: str = E) -> Path:
    """Write a Huozi that answers `words` and then `end`, whatever it is asked: each token calls the next.

    The layer adds nothing without an adapter, so the last norm sees the last token's own embedding, and the
    head, which is not tied here, answers each embedding with its successor.
    """
    write_tiny_bloom(
        path,
        corpus=[words] * 9,
        vocabulary_size=300,
        n_layer=1,
        layout="safetensors",
        chat_tokens=(B, E),
    )
    tokenizer = BloomTokenizer.from_folder(path)
    start = tokenizer.build_prompt(HUOZI.render((), "甲"))[-1]
    chain = [start, *tokenizer.encode(words), tokenizer.id_of(end)]
    assert len(set(chain)) == len(chain) <= 60, "each token has one successor"
    tensors = load_file(path / "model.safetensors")
    embedding = torch.zeros_like(tensors["transformer.word_embeddings.weight"])
    embedding[:, -1] = 1
    head = torch.zeros_like(embedding)
    for place, token in enumerate(chain):
        embedding[token, place], embedding[token, -1] = 1, 0
        if place:
            head[token, place - 1] = 9
    for name, values in tensors.items():
        if ".h.0." in name and "layernorm" not in name:
            values.zero_()
    tensors["transformer.h.0.self_attention.dense.weight"] += torch.eye(len(embedding[0]))
    tensors |= {"transformer.word_embeddings.weight": embedding, "lm_head.weight": head}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return path


def answer(model: ChatModel, question: str = "甲") -> tuple[str, Finish | None]:
    config = GenerationConfig(greedy=True, max_new_tokens=40)
    deltas = list(model.stream(HUOZI.render((), question), config, threading.Event()))
    [batch] = model.generate_batch([HUOZI.render((), question)], config)
    text = "".join(delta.text for delta in deltas)
    assert (batch.text, batch.finish) == (text, deltas[-1].finish)
    return text, deltas[-1].finish


def test_a_folder_is_a_huozi_by_the_tokens_its_small_files_name(folder: Path, tmp_path: Path) -> None:
    BloomBackbone().tiny(tmp_path / "bloom", hidden_size=16)
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (bare / name).unlink()
    for path, is_huozi in ((folder, True), (bare, True), (tmp_path / "bloom", False)):
        huozi, bloom = HuoziBackbone().inspect(path), BloomBackbone().inspect(path)
        assert (huozi is not None, bloom is not None) == (is_huozi, not is_huozi)
        card = huozi or bloom
        assert card is not None and card.backbone == ("huozi" if is_huozi else "bloom")


def test_a_plain_bloom_is_refused_with_what_to_type(tmp_path: Path) -> None:
    BloomBackbone().tiny(tmp_path / "bloom", hidden_size=16)
    with pytest.raises(CheckpointError, match="beginofutterance") as refusal:
        HuoziBackbone().load(LoadOptions(tmp_path / "bloom", device="cpu"))
    assert "--backbone bloom" in refusal.value.remedy


@pytest.mark.parametrize("end", [E, "</s>"])
def test_either_end_token_ends_an_answer_without_a_trace(tmp_path: Path, end: str) -> None:
    model = HuoziBackbone().load(LoadOptions(saying(tmp_path / "huozi", "多喝水", end), device="cpu"))
    assert answer(model) == ("多喝水", Finish.STOP)


def test_answers_get_full_width_marks_beside_chinese_and_lose_markers(tmp_path: Path) -> None:
    model = HuoziBackbone().load(LoadOptions(saying(tmp_path / "huozi", "好,use x:y.吗?"), device="cpu"))
    assert answer(model) == ("好，use x:y.吗？", Finish.STOP)
    cleanup = HUOZI_LOADING.cleanup(LoadOptions(tmp_path / "huozi"))()
    # Spelled letter by letter a marker is ordinary text to the vocabulary.
    assert "".join(map(cleanup.feed, f" 好,{B}a,{E}吗")) + cleanup.finish() == "好，a，吗"


def test_with_an_adapter_answers_stay_as_the_model_wrote_them(tmp_path: Path) -> None:
    path = saying(tmp_path / "huozi", "好,吗?")
    adapter = write_adapter(tmp_path / "lora", layers=1, scale=1e-4)
    model = HuoziBackbone().load(LoadOptions(path, adapters=(adapter,), device="cpu", dtype="float32"))
    assert answer(model)[0] == "好,吗?"


def test_decoding_defaults_are_those_of_the_published_demo() -> None:
    config = HuoziBackbone().generation
    assert (config.max_new_tokens, config.temperature, config.top_k, config.top_p) == (512, 0.5, 50, 0.95)
    assert config.repetition_penalty == 1.03


# ---------------------------------------------------------------- as typed


def test_show_finds_the_family_by_itself(call: Call, folder: Path) -> None:
    outcome = call("models", "show", str(folder), "--json")
    assert outcome.code == 0, outcome.err
    shown = outcome.one()
    assert (shown["backbone"], shown["template"], shown["context_length"]) == ("huozi", "huozi", 2048)


def test_ask_and_chat_answer_with_and_without_an_adapter(call: Call, folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", width=32)
    flags = (
        "--backbone",
        "huozi",
        "--model",
        str(folder),
        "--greedy",
        "--max-new-tokens",
        "6",
        "--device",
        "cpu",
    )
    for more, template in (((), "huozi"), (("--adapter", str(adapter)), "bloom_deploy")):
        outcome = call("ask", "头痛怎么办？", *flags, *more, "--json")
        assert outcome.code == 0, outcome.err
        assert (outcome.one()["template"], outcome.one()["completion_tokens"]) == (template, 6)
        chat = call("chat", *flags, *more, stdin="头痛怎么办？\n你好\n")
        assert chat.code == 0, chat.err
    outcome = call("ask", "你好", *flags, "--adapter", str(adapter), "--template", "huozi", "--json")
    assert outcome.one()["template"] == "huozi", outcome.err
