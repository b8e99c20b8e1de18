"""Small LLaMA checkpoints and adapters, and ways to change them, for the tests of the llama backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from medchat_llama.loading import LLAMA
from peft import LoraConfig, PeftModel, get_peft_model
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.api import LoadOptions
from medchat.inference.causal_loading import CausalModel

QUESTION = "感冒了怎么办？"


def load(path: Path, *adapters: Path, **changes: Any) -> CausalModel[Any, Any]:
    return LLAMA.load(LoadOptions(path, adapters=adapters, device="cpu", **{"dtype": "float32", **changes}))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(3, 40)[None]).logits
    return found


def copy(tiny: Path, target: Path, **config: Any) -> Path:
    """Copy a checkpoint, changing keys of its config.json (None removes one)."""
    shutil.copytree(tiny, target)
    file = target / "config.json"
    stated = {**json.loads(file.read_text(encoding="utf-8")), **config}
    kept = {key: value for key, value in stated.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")
    return target


def with_pieces(path: Path, added: int) -> Path:
    """Add pieces to the folder's vocabulary, or remove its last ones."""
    file = path / "tokenizer.model"
    proto = protocol.ModelProto.FromString(file.read_bytes())
    for number in range(added):
        proto.pieces.add(piece=f"\ue000{number}", score=0.0)
    del proto.pieces[len(proto.pieces) + min(0, added) :]
    file.write_bytes(proto.SerializeToString())
    return path


def lora(model: torch.nn.Module, folder: Path, seed: int, **changes: Any) -> PeftModel:
    """Save an adapter of today's peft over `model`, its matrices drawn at random; return it, in use."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **changes}
    trained = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
    trained.save_pretrained(folder)
    return trained.eval()


def grow(tiny: Path, folder: Path) -> PeftModel:
    """Save an adapter like Chinese-Alpaca's: a LoRA on all linear layers with a larger embedding and head."""
    shutil.copytree(tiny, folder.parent / "vocabulary")
    larger = with_pieces(folder.parent / "vocabulary", 20) / "tokenizer.model"
    model = load(tiny).model
    torch.manual_seed(8)
    model.resize_token_embeddings(model.config.vocab_size + 20, mean_resizing=False)
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    trained = lora(model, folder, 9, target_modules=linears, modules_to_save=["embed_tokens", "lm_head"])
    shutil.copy(larger, folder / "tokenizer.model")
    return trained


def published(folder: Path, base: Path, **config: Any) -> Path:
    """Write an adapter with the shapes of BenTsao's, small as a file, under the name of `folder`."""
    weights = {
        f"base_model.model.model.layers.{layer}.self_attn.{target}.lora_{matrix}.weight": (
            torch.ones(8, 1).expand(8, 4096) if matrix == "A" else torch.ones(1, 8).expand(4096, 8)
        )
        for layer in range(32)
        for target in ("q_proj", "v_proj")
        for matrix in ("A", "B")
    }
    folder.mkdir(parents=True)
    torch.save(weights, folder / "adapter_model.bin")
    stated = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder
