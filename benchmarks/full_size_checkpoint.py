"""Writes a random ChatGLM-6B of full size in the published files' layout, one shard in memory at a time.

Shapes, dtypes, names and the cut into shards are those of the March 2023 release (specs: chatglm-6b
section 2, backbones section 2); the later release kept the cut and has 20000 rows less. The values repeat one
seeded block at shifted places: every row differs, and nothing of it depends on a download.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from medchat_chatglm.vocabulary import complete_model, train_vocabulary
from sentencepiece import sentencepiece_model_pb2 as protocol
from torch import Tensor

V0_ROWS, V11_ROWS = 150528, 130528
#: Pieces of the icetk-era vocabulary; the later one appends 344 (specs: chatglm-6b section 10).
BASE_PIECES = 130000
#: Bytes at which the release started a new shard, counted with the 150528-row embedding.
_SHARD_BYTES = 2_000_000_000
_BLOCK = 2**24 + 43  # a prime: rows of a power of two never meet the same values again soon
_DEVIATION = 0.02
_CONSTANTS = {"ones": 1.0, "zeros": 0.0, "tenths": 0.1, "scale": _DEVIATION / 64}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a config.json says of the size; the defaults are the 6B model's."""

    rows: int = V0_ROWS
    hidden: int = 4096
    inner: int = 16384
    layers: int = 28
    heads: int = 32
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor to write. `kind` chooses its values; embedding and head are one "table", stored twice."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str = "random"

    @property
    def byte_count(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


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
    values = _Values(seed)
    shards = shards_of(shape)
    single = len(shards) == 1
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        suffix = "" if single else f"-{number:05d}-of-{len(shards):05d}"
        file = folder / f"pytorch_model{suffix}.bin"
        torch.save({tensor.name: values.make(tensor) for tensor in shard}, file)
        placed |= {tensor.name: file.name for tensor in shard}
    total = sum(tensor.byte_count for shard in shards for tensor in shard)
    if not single:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    write_small_files(folder, shape)
    return total


class _Values:
    """Values for a tensor, each the seeded block at another place."""

    def __init__(self, seed: int) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self._random = torch.randn(_BLOCK, generator=drawn).mul_(_DEVIATION).half()
        self._integers = torch.randint(-127, 128, (_BLOCK,), generator=drawn, dtype=torch.int8)
        self._place = 0

    def make(self, tensor: Stored) -> Tensor:
        """Return the tensor with the values of its kind."""
        if tensor.kind in _CONSTANTS:
            return torch.full(tensor.shape, _CONSTANTS[tensor.kind], dtype=tensor.dtype)
        if tensor.kind == "frequencies":
            count = tensor.shape[0]
            return (10000.0 ** (-torch.arange(count, dtype=torch.float32) / count)).to(tensor.dtype)
        block = self._integers if tensor.kind == "integers" else self._random
        place = 0 if tensor.kind == "table" else self._next_place()
        filled = torch.empty(math.prod(tensor.shape), dtype=tensor.dtype)
        for start in range(0, len(filled), _BLOCK - place):
            part = filled[start : start + _BLOCK - place]
            part.copy_(block[place : place + len(part)])
        return filled.view(tensor.shape)

    def _next_place(self) -> int:
        self._place = (self._place + 7919) % (_BLOCK // 2)
        return self._place


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
    proto = protocol.ModelProto.FromString(train_vocabulary(sentences, 200, icetk_era=True))
    lowest = min(piece.score for piece in proto.pieces)
    for number in range(BASE_PIECES - len(proto.pieces)):
        # Private-use characters: nobody types them, and decoding them shows that a token came.
        proto.pieces.add(piece=f"\ue000{number}", score=lowest - 1)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    model = bytes(proto.SerializeToString(deterministic=True))
    return model if icetk_era else complete_model(model)[0]
