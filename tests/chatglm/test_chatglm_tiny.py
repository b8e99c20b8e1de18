"""The miniature checkpoint: in every file like the published one, the same each time, and alive."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_chatglm.prompts import CHATGLM_ROUNDS, MED_CHATGLM, chatglm_template
from medchat_chatglm.tiny import GENERATIONS, LAYOUTS, write_tiny_chatglm
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_chatglm.vocabulary import CONTROL_PIECES, FILE_NAME, train_chatglm_vocabulary
from safetensors.torch import load_file
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.api import Text
from medchat.errors import UsageError

pytestmark = pytest.mark.torch

CORPUS = ("头痛怎么办？\n多喝水，注意休息。", "感冒了，怎么治疗！  先量体温。", "a\tb\n\nc")


def written_tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    for file in sorted(folder.glob("*.bin")):
        tensors |= torch.load(file, weights_only=True, map_location="cpu")
    return tensors


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- the vocabulary


@pytest.mark.parametrize("icetk_era", [False, True])
def test_vocabulary_has_the_published_layout(icetk_era: bool) -> None:
    proto = protocol.ModelProto.FromString(train_chatglm_vocabulary(CORPUS, 60, icetk_era=icetk_era))
    pieces = [piece.piece for piece in proto.pieces]
    assert pieces[:6] == ["<unk>", "<s>", "</s>", "<pad>", "<n>", "▁"]
    assert len(set(pieces)) == len(pieces)
    assert proto.trainer_spec.byte_fallback is not icetk_era
    if icetk_era:
        assert set(CONTROL_PIECES).isdisjoint(pieces)
        assert len(pieces) <= 61
    else:
        base = len(pieces) - 344
        assert tuple(pieces[base : base + 8]) == CONTROL_PIECES
        assert pieces[base + 8 : base + 10] == ["<|tab|>", "<|blank_2|>"]
        assert (pieces[-257], pieces[-256], pieces[-1]) == ("<|blank_80|>", "<0x00>", "<0xFF>")


def test_both_layouts_from_one_corpus_hold_the_same_ids() -> None:
    old = ChatGLMTokenizer(train_chatglm_vocabulary(CORPUS, 60, icetk_era=True))
    new = ChatGLMTokenizer(train_chatglm_vocabulary(CORPUS, 60))
    for text in (*CORPUS, "体温 38.5℃\n\n👋  <sop>"):
        assert old.encode(text) == [token + 20000 for token in new.encode(text)]


def test_vocabulary_does_not_depend_on_the_process() -> None:
    code = (
        "import sys, hashlib; from medchat_chatglm.vocabulary import train_chatglm_vocabulary as train;"
        "print(hashlib.sha256(train(sys.argv[1:], 60)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, *CORPUS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert digests == {hashlib.sha256(train_chatglm_vocabulary(CORPUS, 60)).hexdigest()}


@settings(max_examples=60)
@given(corpus=st.lists(st.text(), max_size=6), size=st.integers(16, 120))
def test_any_corpus_gives_a_vocabulary_that_spells_it_or_a_clear_refusal(
    corpus: list[str], size: int
) -> None:
    try:
        tokenizer = ChatGLMTokenizer(train_chatglm_vocabulary(corpus, size))
    except UsageError as refusal:
        assert refusal.remedy
        assert not any(letter.isalnum() for text in corpus for letter in text)
        return
    assert tokenizer.text_pieces <= size + 1 + 344
    for text in corpus:
        if not set(text) & set(" ▁<"):
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "corpus",
    [
        ["[gMASK] [gMASK] <sop> <|tab|> <0x41> <|blank_7|>"] * 40,
        ["很长" * 50_000],
        ["\ud800 a \x00 b ▁ c"] * 3,
        ["".join(map(chr, range(0x4E00, 0x5600)))],
        ["", "\n\n", "有"],
    ],
    ids=("specials", "long-line", "odd-characters", "more-characters-than-pieces", "one-letter"),
)
def test_awkward_corpora_make_loadable_vocabularies(corpus: list[str]) -> None:
    tokenizer = ChatGLMTokenizer(train_chatglm_vocabulary(corpus, 100))
    for text in ("很长，有 [gMASK]", "\x00<sop>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(("corpus", "size"), [([], 100), (["  \n\t "], 100), (["头痛"], 3)])
def test_vocabulary_of_nothing_is_refused(corpus: list[str], size: int) -> None:
    with pytest.raises(UsageError) as refusal:
        train_chatglm_vocabulary(corpus, size)
    assert refusal.value.remedy


def test_normalization_decides_what_becomes_of_full_width_commas() -> None:
    kept = ChatGLMTokenizer(train_chatglm_vocabulary(CORPUS, 60))
    folded = ChatGLMTokenizer(train_chatglm_vocabulary(CORPUS, 60, normalization="nmt_nfkc"))
    assert kept.decode(kept.encode("头痛，")) == "头痛，"
    assert folded.decode(folded.encode("头痛，")) == "头痛,"


# ---------------------------------------------------------------- the folder


@pytest.mark.parametrize("generation", GENERATIONS)
def test_default_folder_is_sharded_like_the_published_one(generation: str, tmp_path: Path) -> None:
    write_tiny_chatglm(tmp_path, generation=generation)
    index = read(tmp_path, "pytorch_model.bin.index.json")
    shards = sorted(file.name for file in tmp_path.glob("*.bin"))
    count = len(shards)
    assert count > 2
    assert shards == [f"pytorch_model-{number:05d}-of-{count:05d}.bin" for number in range(1, count + 1)]
    assert sorted(set(index["weight_map"].values())) == shards
    for shard in shards:
        inside = torch.load(tmp_path / shard, weights_only=True)
        assert set(inside) == {name for name, file in index["weight_map"].items() if file == shard}
    tensors = written_tensors(tmp_path)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".bin") == [
        "config.json", FILE_NAME, "pytorch_model.bin.index.json", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_tensors_have_the_published_names_shapes_and_types(
    generation: str, layout: str, tmp_path: Path
) -> None:
    write_tiny_chatglm(
        tmp_path, generation=generation, layout=layout, hidden_size=32, num_layers=3, corpus=CORPUS
    )
    tensors, config = written_tensors(tmp_path), read(tmp_path, "config.json")
    assert len(tensors) == 3 * 13 + 4
    rows, width = config["vocab_size"], 32
    assert tensors["lm_head.weight"].shape == (rows, width)
    assert torch.equal(tensors["lm_head.weight"], tensors["transformer.word_embeddings.weight"])
    layer = "transformer.layers.2"
    assert tensors[f"{layer}.attention.query_key_value.weight"].shape == (3 * width, width)
    assert tensors[f"{layer}.mlp.dense_4h_to_h.weight"].shape == (width, 256)
    assert tensors[f"{layer}.attention.rotary_emb.inv_freq"].shape == (2,)
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float32 if "layernorm" in name else torch.float16), name


@pytest.mark.parametrize("generation", GENERATIONS)
def test_tokenizer_belongs_to_the_config_and_the_template_is_the_generations(
    generation: str, tmp_path: Path
) -> None:
    write_tiny_chatglm(tmp_path, generation=generation, corpus=CORPUS)
    tokenizer, config = ChatGLMTokenizer.from_folder(tmp_path), read(tmp_path, "config.json")
    assert tokenizer.generation == generation
    assert ("gmask_token_id" in config) is (generation == "v11")
    assert tokenizer.vocab_size <= config["vocab_size"]
    assert max(tokenizer.build_prompt([Text("👋头痛")])) < config["vocab_size"]
    assert chatglm_template(tmp_path) is (MED_CHATGLM if generation == "v0" else CHATGLM_ROUNDS)


def test_prompt_forms_are_not_spelled_in_bytes(tmp_path: Path) -> None:
    write_tiny_chatglm(tmp_path, corpus=["头痛", "发烧"])
    tokenizer = ChatGLMTokenizer.from_folder(tmp_path)
    first_byte = tokenizer.vocab_size - 256
    for template in (MED_CHATGLM, CHATGLM_ROUNDS):
        assert max(tokenizer.encode_segments(template.render([], "头痛"))) < first_byte


def test_same_arguments_write_the_same_tensors_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tiny_chatglm(tmp_path / name, seed=seed, corpus=CORPUS)
    first, twin, other = (written_tensors(tmp_path / name) for name in "abc")
    assert all(torch.equal(tensor, twin[name]) for name, tensor in first.items())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    for file in ("config.json", "tokenizer_config.json", FILE_NAME):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [{"hidden_size": 30}, {"num_layers": 0}, {"generation": "v2"}, {"layout": "zip"}, {"vocabulary_size": 3}],
    ids=str,
)
def test_impossible_requests_are_refused_and_leave_nothing(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        write_tiny_chatglm(tmp_path / "model", **arguments)
    assert refusal.value.remedy
    assert not (tmp_path / "model").exists()


def test_a_folder_with_anything_in_it_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(UsageError):
        write_tiny_chatglm(tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"


# ---------------------------------------------------------------- the model in it


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_model_loads_and_answers_the_same_way_twice(generation: str, layout: str, tmp_path: Path) -> None:
    import threading

    from medchat_chatglm.chat_model import load_chatglm_chat

    from medchat.api import GenerationConfig, LoadOptions, Turn

    write_tiny_chatglm(tmp_path, generation=generation, layout=layout, corpus=CORPUS, num_layers=1)
    model = load_chatglm_chat(LoadOptions(tmp_path, device="cpu", dtype="float32"))
    segments = chatglm_template(tmp_path).render([Turn("头痛", "多喝水。")], "发烧怎么办？")
    config = GenerationConfig(max_new_tokens=12, greedy=True)
    answers = {
        "".join(delta.text for delta in model.stream(segments, config, threading.Event())) for _ in range(2)
    }
    assert len(answers) == 1
    assert "\ufffd" not in answers.pop()
    assert model.count(segments) == len(ChatGLMTokenizer.from_folder(tmp_path).build_prompt(segments))
    model.close()
