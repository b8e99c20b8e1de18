"""A tiny LLaMA, and LoRA folders for it in the formats of all peft versions.

(PYTEST_DONT_REWRITE: imported by name as well as as a plugin.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

CPU, FLOAT, WIDTH, LAYERS, RANK = torch.device("cpu"), torch.float32, 16, 2, 4
TARGETS = ("q_proj", "v_proj")
#: The configuration as peft 0.3.0 wrote it, including keys that no longer exist.
OLD_CONFIG: Mapping[str, Any] = {
    "base_model_name_or_path": "/home/somebody/llama_model",
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": RANK,
    "target_modules": list(TARGETS),
    "task_type": "CAUSAL_LM",
}


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval()


def matrices(seed: int, rank: int = RANK, width: int = WIDTH, layers: int = LAYERS) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(layers):
        for target in TARGETS:
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            found[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=drawn)
            found[f"{name}.lora_B.weight"] = torch.randn(width, rank, generator=drawn)
    return found


def write(folder: Path, weights: Mapping[str, Tensor], layout: str = "bin", **changes: Any) -> Path:
    """Write an adapter folder: `bin`, `legacy` (torch before 1.6) or `safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**OLD_CONFIG, **changes}), encoding="utf-8")
    if layout == "safetensors":
        save_file(dict(weights), folder / "adapter_model.safetensors")
    else:
        zipped = layout == "bin"
        torch.save(dict(weights), folder / "adapter_model.bin", _use_new_zipfile_serialization=zipped)
    return folder


def logits(model: torch.nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(torch.arange(3, 12)[None]).logits
    return found


def by_hand(model: LlamaForCausalLM, *adapters: tuple[Mapping[str, Tensor], float]) -> Tensor:
    """Return the logits with the deltas added to the weights by matrix products, without peft."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    changed = dict(kept)
    for weights, scaling in adapters:
        for name, first in weights.items():
            if name.endswith("lora_A.weight"):
                own = name.removeprefix("base_model.model.").replace(".lora_A", "")
                second = weights[name.replace("lora_A", "lora_B")]
                changed[own] = changed[own] + scaling * (second @ first)
    model.load_state_dict(changed)
    found = logits(model)
    model.load_state_dict(kept)
    return found


def changed(weights: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    first = next(iter(weights))
    if case == "missing":
        del weights[first]
    elif case == "unexpected":
        weights["base_model.model.ghost.lora_A.weight"] = torch.ones(RANK, WIDTH)
    elif case == "idle":
        weights = {
            name: torch.zeros_like(value) if "lora_B" in name else value for name, value in weights.items()
        }
    elif case == "nan":
        weights[first][0, 0] = float("nan")
    elif case == "integers":
        weights[first] = weights[first].long()
    elif case == "whole tensor":
        weights["base_model.model.lm_head.weight"] = torch.ones(40, WIDTH)
    return weights
