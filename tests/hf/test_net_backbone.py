"""A net of one's own as a backbone: how its folder is written, read and refused, and what training leaves of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from byte_nets import Bytes
from plugin_sites import import_example
from sft_watcher import Watcher
from torch import Tensor, nn

from medchat.api import Control, Example, GenerationConfig, LoadOptions, SFTData, SFTOptions, Text
from medchat.errors import CheckpointError, UsageError
from medchat.hf import NetBackbone
from medchat.inference.net_chat_model import NetChatModel

pytestmark = pytest.mark.torch
OPTIONS: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


class Averaging(nn.Module):
    """A head tied to its embedding, a buffer that is computed and one that is stored."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(rows, width), nn.Linear(width, rows, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("reach", torch.ones(512, 512).tril(), persistent=False)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, ids: Tensor) -> Tensor:
        reach = self.reach[: ids.shape[1], : ids.shape[1]]
        mixed = (reach / reach.sum(1, keepdim=True)) @ self.embedding(ids) + self.embedding(ids)
        logits: Tensor = self.head(mixed * self.scale)
        return logits


class AveragingBackbone(NetBackbone):
    name = "averaging"
    summary: Mapping[str, str] = {"zh": "测试", "en": "test"}

    def net(self, config: Mapping[str, Any]) -> nn.Module:
        return Averaging(config["vocab_size"], config["width"])

    def tokenizer(self, folder: Path) -> Bytes:
        return Bytes()

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        self.write_random(path, {"vocab_size": 260, "width": 16, "max_position_embeddings": 512}, seed)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    AveragingBackbone().tiny(tmp_path / "base")
    return tmp_path / "base"


def net_of(folder: Path) -> Averaging:
    chat = AveragingBackbone().load(LoadOptions(folder, **OPTIONS))
    assert isinstance(chat, NetChatModel)
    net = chat.model
    assert isinstance(net, Averaging)
    return net


def test_tied_weights_stay_tied_and_computed_buffers_are_there(base: Path) -> None:
    torch.manual_seed(0)
    made, loaded = Averaging(260, 16), net_of(base)
    assert loaded.head.weight is loaded.embedding.weight
    assert torch.equal(loaded.embedding.weight, made.embedding.weight)
    assert torch.equal(loaded.reach, made.reach)


def test_training_keeps_the_tie_and_states_its_template(base: Path, tmp_path: Path) -> None:
    options = SFTOptions(model=base, output=tmp_path / "out", method="full", device="cpu", batch_size=1)
    AveragingBackbone().recipes["full"].run(SFTData([Example("a", "b")] * 3), options, Watcher())
    before, after = net_of(base), net_of(tmp_path / "out")
    assert after.head.weight is after.embedding.weight
    assert not torch.equal(after.embedding.weight, before.embedding.weight)
    assert AveragingBackbone().trained_templates(LoadOptions(tmp_path / "out")) == ("bare",)
    assert list(AveragingBackbone().recipes) == ["full", "lora"]


def test_rows_without_a_token_are_never_chosen(base: Path) -> None:
    chat = AveragingBackbone().load(LoadOptions(base, **OPTIONS))
    assert isinstance(chat, NetChatModel)
    chat.model.head.weight = nn.Parameter(chat.model.head.weight.detach().clone())
    chat.model.head.weight.data[257:] = 1e3 * chat.model.head.weight.data[65]
    config = GenerationConfig(max_new_tokens=8, greedy=True)
    (one,) = chat.generate_batch([[Text("A")]], config)
    streamed = "".join(delta.text for delta in chat.stream([Text("A")], config, threading.Event()))
    assert one.text == streamed == "AAAAAAAA"


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.pop(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("width"), "width"),
        (without("max_position_embeddings"), "max_position_embeddings"),
        (lambda config: config.update(width="16"), "config.json"),
        (lambda config: config.update(width=-4), "config.json"),
        (lambda config: config.update(width=17), "embedding.weight"),
        (lambda config: config.update(vocab_size=200), "vocab_size"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_weights_are_read(
    change: Callable[[dict[str, Any]], None], said: str, base: Path
) -> None:
    config = json.loads((base / "config.json").read_text())
    change(config)
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as refused:
        AveragingBackbone().check(LoadOptions(base, **OPTIONS))
    assert said in f"{refused.value.what} {refused.value.where}"


def test_a_special_token_that_the_vocabulary_lacks_is_a_usage_error() -> None:
    assert Bytes().build_prompt([Text("a"), Control("<end>")]) == [97, 256]
    with pytest.raises(UsageError, match="<start>"):
        Bytes().build_prompt([Control("<start>")])


@pytest.mark.parametrize("content", [b"\xff", b"a" * (2 << 20), None], ids=("latin", "huge", "missing"))
def test_the_example_refuses_a_vocabulary_that_it_cannot_read(content: bytes | None, tmp_path: Path) -> None:
    charlm = import_example("medchat-charlm").medchat_backbones()[0]
    charlm.tiny(tmp_path / "base")
    vocabulary = tmp_path / "base" / "characters.txt"
    vocabulary.unlink() if content is None else vocabulary.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"characters\.txt"):
        charlm.check(LoadOptions(tmp_path / "base", **OPTIONS))
