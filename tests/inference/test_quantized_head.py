"""The output head is quantised with the layers, for the native engine, in every family, tied or its own."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_checkpoints import grow
from native_engine import COMPILED, rounded
from safetensors.torch import load_file, save_file
from talking_miniatures import FAMILIES, WEIGHTS

from medchat.api import GenerationConfig, LoadOptions, QuantizedCache, Text
from medchat.checkpoints.kept_quantized import all_kept
from medchat.errors import CheckpointError
from medchat.inference.engine import NativeLinear

pytest_plugins = ("talking_miniatures",)
pytestmark = [pytest.mark.torch, COMPILED]

QUESTION = [Text("头痛怎么办？")]
GREEDY = GenerationConfig(max_new_tokens=8, greedy=True)
HEAD = "lm_head.weight"


def load(family: str, model: Path, **options: Any) -> Any:
    how = {"device": "cpu", "dtype": "float32", "quantize": "int8", "engine": "native", **options}
    return FAMILIES[family].load(LoadOptions(model, **how))


def answer(chat: Any) -> str:
    return "".join(delta.text for delta in chat.stream(QUESTION, GREEDY, threading.Event()))


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_that_of_the_files_in_the_width_of_the_layers(
    family: str, quantize: str, talkative: Callable[[str], Path]
) -> None:
    chat = load(family, talkative(family), quantize=quantize)
    head, embedding = chat.model.get_output_embeddings(), chat.model.get_input_embeddings()
    stored = {name: values.float() for name, values in load_file(talkative(family) / WEIGHTS).items()}
    tied = family != "llama"
    original = next(values for values in stored.values() if torch.equal(values, embedding.weight))
    assert isinstance(head, NativeLinear)
    wanted = rounded(original if tied else stored[HEAD], int(quantize[-1]), "native")
    assert torch.equal(head.dense_weight(), wanted)


@pytest.mark.parametrize("family", ["bloom", "chatglm"])
def test_a_tied_head_is_read_back_from_the_kept_file_beside_the_embedding(
    family: str, talkative: Callable[[str], Path], tmp_path: Path
) -> None:
    kept = QuantizedCache(tmp_path / "cache", 1 << 30)
    how = {"dtype": "bfloat16", "quantized_cache": kept}
    first, second = (load(family, talkative(family), **how) for _ in range(2))
    plain = load(family, talkative(family), dtype="bfloat16")
    for chat in (first, second):
        for find in ("get_output_embeddings", "get_input_embeddings"):
            expected, found = (getattr(one.model, find)().weight for one in (plain, chat))
            assert torch.equal(expected, found)
    assert answer(plain) == answer(first) == answer(second)
    (file,) = [one.folder / "model.safetensors" for one in all_kept(tmp_path / "cache")]
    lines = [line.split() for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    spans = [line[0].split("-") for line in lines if line[-1] == str(file)]
    place = second.model.get_input_embeddings().weight.data_ptr()
    assert any(int(low, 16) <= place < int(high, 16) for low, high in spans)


def test_a_kept_file_of_another_type_is_another_file(
    talkative: Callable[[str], Path], tmp_path: Path
) -> None:
    kept = QuantizedCache(tmp_path / "cache", 1 << 30)
    for dtype in ("bfloat16", "float32", "bfloat16"):
        chat = load("chatglm", talkative("chatglm"), dtype=dtype, quantized_cache=kept)
        assert str(chat.model.get_input_embeddings().weight.dtype) == f"torch.{dtype}"
    assert len(all_kept(tmp_path / "cache")) == 2


def test_a_head_that_the_files_call_their_own_is_not_made_from_the_embedding(
    talkative: Callable[[str], Path], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(talkative("chatglm"), own)
    tensors = load_file(own / WEIGHTS)
    tensors[HEAD] = tensors[HEAD].flip(0).contiguous()
    save_file(tensors, own / WEIGHTS, {"format": "pt"})
    config = json.loads((own / "config.json").read_text(encoding="utf-8"))
    (own / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")
    head = load("chatglm", own).model.get_output_embeddings()
    assert torch.equal(head.dense_weight(), rounded(tensors[HEAD].float(), 8, "native"))


def test_a_stored_copy_of_a_tied_head_must_still_have_its_shape(
    talkative: Callable[[str], Path], tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(talkative("chatglm"), odd)
    tensors = load_file(odd / WEIGHTS)
    tensors[HEAD] = tensors[HEAD][:-1].contiguous()
    save_file(tensors, odd / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=HEAD):
        load("chatglm", odd)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_an_adapter_with_a_vocabulary_brings_its_head_whole_over_packed_weights(
    engine: str, tmp_path: Path
) -> None:
    tiny = tmp_path / "tiny"
    FAMILIES["llama"].tiny(tiny, layout="safetensors")
    grow(tiny, tmp_path / "grown")
    (tmp_path / "packed").mkdir()
    FAMILIES["llama"].save_quantized(LoadOptions(tiny, quantize="int8"), tmp_path / "packed")
    heads = [
        load("llama", model, adapters=(tmp_path / "grown",), engine=engine, **how).model.lm_head
        for model, how in ((tiny, {}), (tmp_path / "packed", {"quantize": "none"}))
    ]
    assert torch.equal(*(head.weight for head in heads))
    assert heads[0].weight.is_floating_point()


def test_the_head_of_torch_is_as_the_published_files_have_it(talkative: Callable[[str], Path]) -> None:
    chat = load("chatglm", talkative("chatglm"), engine="torch")
    assert type(chat.model.get_output_embeddings()) is torch.nn.Linear
    assert chat.model.get_output_embeddings().weight is chat.model.get_input_embeddings().weight


def test_a_shared_head_counts_once(talkative: Callable[[str], Path]) -> None:
    counts = {
        load("bloom", talkative("bloom"), engine=engine).describe()["parameters"]
        for engine in ("torch", "native")
    }
    assert len(counts) == 1
