"""Writes a random LLaMA-7B of full size in decapoda's layout, and an adapter of BenTsao's size for it.

33 shards, as published: a layer each, then embedding, norm and head
(docs/specs/models.md, "LLaMA and Chinese-Alpaca"). The adapter is LoRA of rank 8 on q_proj and
v_proj, 16.8 MB in float32 (docs/specs/models.md, "Adapters").
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from medchat_llama.tiny import TinyLlamaShape, small_files
from medchat_llama.vocabulary import train_llama_vocabulary
from sentencepiece import sentencepiece_model_pb2 as protocol
from stored_values import Stored, write_shards


@dataclass(frozen=True, slots=True)
class Shape:
    """What a config.json says of the size; the defaults are the 7B model's."""

    rows: int = 32000
    hidden: int = 4096
    inner: int = 11008
    layers: int = 32
    heads: int = 32


def layer_tensors(shape: Shape, layer: int) -> Iterator[Stored]:
    """Yield the tensors of one layer, its stored table of frequencies included."""
    half, wide, prefix = torch.float16, shape.hidden, f"model.layers.{layer}"
    for name in ("q", "k", "v", "o"):
        yield Stored(f"{prefix}.self_attn.{name}_proj.weight", (wide, wide), half)
    frequencies = (wide // shape.heads // 2,)
    yield Stored(f"{prefix}.self_attn.rotary_emb.inv_freq", frequencies, torch.float32, "frequencies")
    yield Stored(f"{prefix}.mlp.gate_proj.weight", (shape.inner, wide), half)
    yield Stored(f"{prefix}.mlp.down_proj.weight", (wide, shape.inner), half)
    yield Stored(f"{prefix}.mlp.up_proj.weight", (shape.inner, wide), half)
    yield Stored(f"{prefix}.input_layernorm.weight", (wide,), half, "ones")
    yield Stored(f"{prefix}.post_attention_layernorm.weight", (wide,), half, "ones")


def shards_of(shape: Shape) -> list[list[Stored]]:
    """Return the tensors shard by shard: 33 for the 7B shape."""
    half, wide = torch.float16, shape.hidden
    last = [
        Stored("model.embed_tokens.weight", (shape.rows, wide), half),
        # Small states make every token about as likely: the answer shows text.
        Stored("model.norm.weight", (wide,), half, "tenths"),
        Stored("lm_head.weight", (shape.rows, wide), half),
    ]
    return [*(list(layer_tensors(shape, layer)) for layer in range(shape.layers)), last]


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> int:
    """Write the small files, the vocabulary and the weights; return the bytes of all tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = TinyLlamaShape(shape.hidden, shape.inner, shape.layers, shape.heads)
    for name, content in small_files(sizes, shape.rows, "decapoda").items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(padded_vocabulary(shape.rows))
    return write_shards(folder, shards_of(shape), seed)


def write_adapter(folder: Path, shape: Shape, rank: int = 8) -> None:
    """Write an adapter as peft 0.3.0 saved BenTsao's."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, weights = torch.Generator().manual_seed(1), {}
    for layer in range(shape.layers):
        for target in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            weights[f"{name}.lora_A.weight"] = torch.randn(rank, shape.hidden, generator=drawn) * 0.02
            weights[f"{name}.lora_B.weight"] = torch.randn(shape.hidden, rank, generator=drawn) * 0.02
    torch.save(weights, folder / "adapter_model.bin")
    config = {
        "base_model_name_or_path": "",
        "bias": "none",
        "enable_lora": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "merge_weights": False,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def padded_vocabulary(rows: int) -> bytes:
    """Return a small vocabulary filled with unused pieces up to `rows`."""
    sentences = [
        "头痛怎么办？请多休息，多喝温水。",
        "### 问题: ### 回答:",
        "What should I do about a headache?",
    ]
    proto = protocol.ModelProto.FromString(train_llama_vocabulary(sentences, 340))
    lowest = min(piece.score for piece in proto.pieces)
    for number in range(rows - len(proto.pieces)):
        # Private-use characters: nobody types them, and decoding them shows that a token came.
        proto.pieces.add(piece=f"\ue000{number}", score=lowest - 1)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return bytes(proto.SerializeToString(deterministic=True))
