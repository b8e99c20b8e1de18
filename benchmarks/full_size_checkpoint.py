"""Writes a random ChatGLM-6B of full size in the published files' layout, one shard in memory at a time.

Shapes, dtypes, names and the cut into shards are those of the March 2023 release
(docs/specs/models.md, "ChatGLM-6B tensors"); the later release kept the cut and has
20000 rows less.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from medchat_chatglm.vocabulary import complete_model, train_chatglm_vocabulary
from sentencepiece import sentencepiece_model_pb2 as protocol
from stored_values import Stored, write_shards

V0_ROWS, V11_ROWS = 150528, 130528
#: Pieces of the icetk-era vocabulary; the later one has 344 more
#: (docs/specs/models.md, "ChatGLM-6B vocabulary").
BASE_PIECES = 130000
#: Bytes at which the release started a new shard, counted with the 150528-row embedding.
_SHARD_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What a config.json says of the size; the defaults are the 6B model's."""

    rows: int = V0_ROWS
    hidden: int = 4096
    inner: int = 16384
    layers: int = 28
    heads: int = 32
    bits: int = 0


def stored_tensors(shape: Shape) -> Iterator[Stored]:
    """Yield every tensor of the checkpoint in the published order (368 for the 6B shape, unquantised)."""
    half, wide = torch.float16, shape.hidden

    def norm(name: str, kind: str = "ones") -> Iterator[Stored]:
        yield Stored(f"{name}.weight", (wide,), torch.float32, kind)
        yield Stored(f"{name}.bias", (wide,), torch.float32, "zeros")

    def linear(name: str, outputs: int, inputs: int) -> Iterator[Stored]:
        if shape.bits:
            yield Stored(f"{name}.weight", (outputs, inputs * shape.bits // 8), torch.int8, "integers")
            yield Stored(f"{name}.weight_scale", (outputs,), half, "scale")
        else:
            yield Stored(f"{name}.weight", (outputs, inputs), half)
        yield Stored(f"{name}.bias", (outputs,), half, "zeros")

    yield Stored("transformer.word_embeddings.weight", (shape.rows, wide), half, "table")
    for layer in range(shape.layers):
        prefix = f"transformer.layers.{layer}"
        yield from norm(f"{prefix}.input_layernorm")
        frequencies = (wide // shape.heads // 4,)
        yield Stored(f"{prefix}.attention.rotary_emb.inv_freq", frequencies, half, "frequencies")
        yield from linear(f"{prefix}.attention.query_key_value", 3 * wide, wide)
        yield from linear(f"{prefix}.attention.dense", wide, wide)
        yield from norm(f"{prefix}.post_attention_layernorm")
        yield from linear(f"{prefix}.mlp.dense_h_to_4h", shape.inner, wide)
        yield from linear(f"{prefix}.mlp.dense_4h_to_h", wide, shape.inner)
    # Under a tied random head the last state resembles its own token most: at full scale `<sop>`, which
    # has no text, would be the whole answer. Small states make every token about as likely.
    yield from norm("transformer.final_layernorm", "tenths")
    yield Stored("lm_head.weight", (shape.rows, wide), half, "table")


def shards_of(shape: Shape) -> list[list[Stored]]:
    """Cut the tensors as the release did. Quantised checkpoints were published as one file."""
    tensors = list(stored_tensors(shape))
    if shape.bits:
        return [tensors]
    shards: list[list[Stored]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor.byte_count
        if tensor.shape[0] == shape.rows:
            size = size // shape.rows * V0_ROWS
        if filled + size > _SHARD_BYTES and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    return shards


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> int:
    """Write config.json, the vocabulary and the weights into `folder`; return the bytes of all tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    total = write_shards(folder, shards_of(shape), seed)
    write_small_files(folder, shape)
    return total


def write_small_files(folder: Path, shape: Shape) -> None:
    """Write config.json, tokenizer_config.json and a vocabulary whose ids fit the number of rows."""
    is_v0 = shape.rows == V0_ROWS
    first = BASE_PIECES + (20000 if is_v0 else 0)
    config = {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "bos_token_id": first + 4,
        "eos_token_id": first + 5,
        "pad_token_id": 20003 if is_v0 else 3,
        **({} if is_v0 else {"mask_token_id": first, "gmask_token_id": first + 1}),
        "hidden_size": shape.hidden,
        "inner_hidden_size": shape.inner,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": 2048,
        "num_attention_heads": shape.heads,
        "num_layers": shape.layers,
        "position_encoding_2d": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": shape.rows,
        **({"quantization_bit": shape.bits, "quantization_embeddings": False} if shape.bits else {}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    names = {"tokenizer_class": "ChatGLMTokenizer"} | ({} if is_v0 else {"num_image_tokens": 0})
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    (folder / "ice_text.model").write_bytes(padded_vocabulary(icetk_era=is_v0))


def padded_vocabulary(*, icetk_era: bool) -> bytes:
    """Return a small vocabulary filled with unused pieces up to the published number of pieces."""
    sentences = [
        "头痛怎么办？请多休息，多喝温水。",
        "问题：回答: 答案：问：答：",
        "What should I do about a headache?",
    ]
    proto = protocol.ModelProto.FromString(train_chatglm_vocabulary(sentences, 200, icetk_era=True))
    lowest = min(piece.score for piece in proto.pieces)
    for number in range(BASE_PIECES - len(proto.pieces)):
        # Private-use characters: nobody types them, and decoding them shows that a token came.
        proto.pieces.add(piece=f"\ue000{number}", score=lowest - 1)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    model = bytes(proto.SerializeToString(deterministic=True))
    return model if icetk_era else complete_model(model)[0]
