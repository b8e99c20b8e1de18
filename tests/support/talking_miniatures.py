"""A tiny model of every local family with varied answers: each token depends on all previous ones.

The plugins' own tiny models nearly repeat one token; their answers would be equal even with wrong padding.
Here the matrices are large, so that every token and its position change the answer. Tests ask for the fixture
`talkative`, after `pytest_plugins = ("talking_miniatures",)`. (PYTEST_DONT_REWRITE: imported by name too.)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_program import rows
from locations import DATA as TESTS_DATA
from locations import SHARED
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from safetensors.torch import load_file, save_file

from medchat.api import Backbone, ChatModel, LoadOptions
from medchat.cli.program import run

FAMILIES: dict[str, Backbone] = {
    "chatglm": ChatGLMBackbone(),
    "llama": LlamaBackbone(),
    "bloom": BloomBackbone(),
    "huozi": HuoziBackbone(),
}
DATA = SHARED / "data"
#: The data files of the original projects, and under which key their questions stand.
FILES = {"infer.json": "instruction", "liver_cancer.json": "instruction", "cmcoqa_question.json": "question"}
BODY = ["头痛", "发热", "咳嗽", "心悸", "乏力", "失眠", "腹泻", "胸闷"]
#: The standard deviation of the weights, and a factor for the end token, so that many of the answers stop
#: early.
_SPREAD, _END_TOKEN = 0.3, 1.6
#: A seed with which the answers of every family vary, which its tests assume and check.
_SEED = 8
#: The first ids of a vocabulary are not text and must never be chosen.
_CONTROL_IDS = 6
WEIGHTS, _FORMAT = "model.safetensors", {"format": "pt"}

Talkative = Callable[..., Path]


def records(name: str) -> list[dict[str, Any]]:
    """Return the records of a data file, skipping the test where it is not on this machine."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def corpus() -> list[str]:
    """Return texts for a vocabulary, the same on every machine."""
    lines = (TESTS_DATA / "red_flags" / "written.jsonl").read_text(encoding="utf-8").splitlines()
    return [word + "怎么办？要不要去医院？" for word in BODY] + [
        json.loads(line)["text"] for line in lines[:900]
    ]


@pytest.fixture(scope="session")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Talkative:
    """Return a function from a family's name (and the stored dtype) to the folder of its miniature."""

    @cache
    def folder(family: str, dtype: torch.dtype = torch.float16) -> Path:
        path = tmp_path_factory.mktemp("talkative") / family
        if dtype is torch.float16:
            FAMILIES[family].tiny(path, corpus=corpus(), vocabulary_size=3000, layout="safetensors")
            _make_talkative(path, FAMILIES[family])
        else:
            shutil.copytree(folder(family), path)
            tensors = load_file(path / WEIGHTS)
            save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, path / WEIGHTS, _FORMAT)
        return path

    return folder


def _make_talkative(folder: Path, backbone: Backbone) -> None:
    stops = load(backbone, folder).limits.stop_ids
    tensors = load_file(folder / WEIGHTS)
    random = torch.Generator().manual_seed(_SEED)

    def drawn(shape: torch.Size) -> torch.Tensor:
        return torch.randn(shape, generator=random) * _SPREAD

    tensors = {
        name: drawn(tensors[name].shape) if tensors[name].dim() == 2 else tensors[name].float()
        for name in sorted(tensors)
    }
    head = tensors["lm_head.weight"]
    ends = [stop for stop in stops if stop < len(head)]
    head[:_CONTROL_IDS] = 0
    head[ends] = drawn(head[ends].shape) * _END_TOKEN
    if backbone.name != "llama":  # the only one whose head is not its embedding
        tensors[next(name for name in tensors if name.endswith("word_embeddings.weight"))] = head.clone()
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / WEIGHTS, _FORMAT)


def load(backbone: Backbone, folder: Path, dtype: str = "float32") -> ChatModel | Any:
    """Load a folder on the CPU."""
    return backbone.load(LoadOptions(folder, device="cpu", dtype=dtype))


def infer(model: Path, data: Path, output: Path, *flags: str, dtype: str = "float32") -> list[dict[str, Any]]:
    """Run `medchat infer` in this process and return the lines of its result."""
    loading = ["--model", str(model), "--device", "cpu", "--dtype", dtype]
    files = ["--data", str(data), "--output", str(output)]
    assert run(["infer", *loading, *files, *flags], language=None, debug=True) == 0
    return rows(output)
