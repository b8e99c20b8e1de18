"""LoRA folders as peft saves them for Bloom's architecture, for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_CONFIG: dict[str, Any] = {
    "base_model_name_or_path": "/a/path/of/another/machine",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "target_modules": ["query_key_value"],
    "task_type": "CAUSAL_LM",
}


def write_adapter(
    folder: Path,
    *,
    layers: int = 2,
    width: int = 64,
    rank: int = 4,
    seed: int = 1,
    scale: float = 0.5,
    safetensors: bool = False,
    **config: Any,
) -> Path:
    """Write an adapter on the fused query_key_value of every layer; `scale` 0 makes one that changes nothing."""
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        module = f"base_model.model.transformer.h.{layer}.self_attention.query_key_value"
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, width, generator=random) * 0.5
        tensors[f"{module}.lora_B.weight"] = torch.randn(3 * width, rank, generator=random) * scale
    stated = {**_CONFIG, "r": rank, **config}
    (folder / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    if safetensors:
        save_file(tensors, folder / "adapter_model.safetensors")
    else:
        torch.save(tensors, folder / "adapter_model.bin")
    return folder
