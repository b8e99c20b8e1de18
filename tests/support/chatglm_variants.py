"""Miniature ChatGLM checkpoints, and variants of them to load.

(PYTEST_DONT_REWRITE: imported by name as well as as a plugin.)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import write_weights
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.loading import LoadedModel, load_model
from medchat_chatglm.tiny import write_tiny_chatglm
from safetensors.torch import load_file
from torch import Tensor

from medchat.api import LoadOptions

EMBEDDING, HEAD = "transformer.word_embeddings.weight", "lm_head.weight"
Weights = dict[str, Tensor]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the current generation, never written to."""
    folder = tmp_path_factory.mktemp("tiny") / "v11"
    write_tiny_chatglm(
        folder, layout="safetensors", hidden_size=32, inner_hidden_size=64, num_attention_heads=2
    )
    return folder


@pytest.fixture(scope="session")
def tiny_v0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the icetk era, with image ids and without mask ids in its configuration."""
    folder = tmp_path_factory.mktemp("tiny") / "v0"
    write_tiny_chatglm(
        folder,
        generation="v0",
        layout="safetensors",
        hidden_size=16,
        inner_hidden_size=32,
        num_attention_heads=1,
    )
    return folder


def tensors_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def config_of(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return table


def variant(
    source: Path, target: Path, weights: Weights | None = None, layout: str = "safetensors", **config: Any
) -> Path:
    """Copy a miniature with other weights, another layout or other keys (None removes one)."""
    target.mkdir()
    for file in ("ice_text.model", "tokenizer_config.json"):
        shutil.copy(source / file, target)
    table = config_of(source) | config
    table = {key: value for key, value in table.items() if value is not None}
    (target / "config.json").write_text(json.dumps(table), encoding="utf-8")
    write_weights(target, tensors_of(source) if weights is None else weights, layout)
    return target


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(LoadOptions(folder, **({"device": "cpu", "dtype": "float32"} | options)))


def logits(model: torch.nn.Module, config: ChatGLMConfig) -> Tensor:
    ids = torch.tensor([[*range(6, 14), config.gmask_token_id, config.bos_token_id]])
    with torch.inference_mode():
        result: Tensor = model(ids, use_cache=False).logits
    return result
