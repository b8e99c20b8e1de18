"""Writes a tiny Bloom with random weights, in the published layout.

Layout from docs/specs/models.md, "Bloom", written without the library's model, so that an error in its use
cannot hide in its test data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers

from medchat.hf.tiny import TINY_CORPUS, train_byte_level
from medchat.hf.vocabulary import FILE_NAME
from medchat.inference.write_checkpoint import (
    LAYOUTS,
    RandomTensors,
    begin_folder,
    check_choice,
    impossible_shape,
    layer_norm,
    write_json,
    write_weights,
)
from medchat_bloom.tokenizer import BOS, EOS, PAD, UNK, WORDS

# Trains a small vocabulary in the format of Bloom's `tokenizer.json`. No torch here.


def train_tokenizer(corpus: Iterable[str], size: int, chat_tokens: Sequence[str] = ()) -> Tokenizer:
    """Return a byte-level BPE vocabulary in the published format, of at most `size` tokens before `chat_tokens`.

    Every string can be encoded: it has all 256 bytes.
    """
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return train_byte_level(corpus, size, cut, (UNK, BOS, EOS, PAD), chat_tokens)


#: Standard deviation of the random embedding, the usual one for models of this family, and of the layers'
#: matrices: large, or a model with a tied head would always repeat its last input token.
INITIALIZER_RANGE, LAYER_RANGE = 0.02, 0.3
# The published embedding has 200 more rows than there are tokens.
_ROWS_MULTIPLE, _SPARE_ROWS = 32, 8
_SMALLEST_VOCABULARY = 4 + 256


@dataclass(frozen=True, slots=True)
class TinyBloomShape:
    """The size of a tiny model. Heads must divide the width; the vocabulary has at least 256 bytes."""

    hidden_size: int = 64
    n_layer: int = 2
    n_head: int = 4
    vocabulary_size: int = 1000

    def __post_init__(self) -> None:
        smallest = min(self.hidden_size, self.n_layer, self.n_head)
        possible = smallest > 0 and self.vocabulary_size >= _SMALLEST_VOCABULARY
        if not possible or self.hidden_size % self.n_head:
            raise impossible_shape(
                self,
                f"各项都要大于 0，hidden_size 要能被 n_head 整除，vocabulary_size 至少 {_SMALLEST_VOCABULARY}",
                "all must be positive, hidden_size a multiple of n_head, vocabulary_size at least "
                f"{_SMALLEST_VOCABULARY}",
            )


def write_tiny_bloom(
    path: Path,
    *,
    corpus: Iterable[str] = (),
    seed: int = 0,
    layout: str = "sharded_bin",
    prefix: str = "transformer.",
    chat_tokens: Sequence[str] = (),
    **shape: int,
) -> None:
    """Write a checkpoint folder: config.json, the tokenizer's three files and the weights.

    The vocabulary is trained on `corpus` (a few sentences of our own if it is empty); `chat_tokens` are
    appended and named in special_tokens_map.json. `layout` is one of `LAYOUTS`; `prefix` precedes every
    stored name ("" as in the files of bloom-7b1, which also lack the tied head); `shape` are the fields of
    `TinyShape`. Weights are float16. The same arguments give the same files. Raises UsageError for an
    impossible shape, an unknown choice, or a folder that is not empty.
    """
    sizes = TinyBloomShape(**shape)
    check_choice("layout", layout, LAYOUTS)
    check_choice("prefix", prefix, ("", "transformer."))
    begin_folder(path)
    tokenizer = train_tokenizer(tuple(corpus) or TINY_CORPUS, sizes.vocabulary_size, chat_tokens)
    (path / FILE_NAME).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    named = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "pad_token": PAD}
    declared = {**named, **({"additional_special_tokens": list(chat_tokens)} if chat_tokens else {})}
    write_json(path / "special_tokens_map.json", declared)
    write_json(
        path / "tokenizer_config.json",
        {**named, "padding_side": "left", "tokenizer_class": "BloomTokenizerFast"},
    )
    needed = tokenizer.get_vocab_size() + _SPARE_ROWS
    rows = -(-needed // _ROWS_MULTIPLE) * _ROWS_MULTIPLE
    write_json(path / "config.json", _config(sizes, rows))
    tensors = {
        prefix + name if name != "lm_head.weight" else name: values
        for name, values in _tensors(sizes, rows, seed, with_head=bool(prefix))
    }
    write_weights(path, tensors, layout, shards=2)


def _config(sizes: TinyBloomShape, rows: int) -> dict[str, Any]:
    return {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "unk_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "hidden_size": sizes.hidden_size,
        "initializer_range": INITIALIZER_RANGE,
        "layer_norm_epsilon": 1e-5,
        "n_head": sizes.n_head,
        "n_layer": sizes.n_layer,
        "pretraining_tp": 1,
        "seq_length": 2048,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": rows,
    }


def _tensors(
    sizes: TinyBloomShape, rows: int, seed: int, *, with_head: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of the checkpoint in the published order, with names without prefix."""
    width = sizes.hidden_size
    random, norm = RandomTensors(seed, LAYER_RANGE), partial(layer_norm, width=width, dtype=torch.float16)
    linear = random.linear
    embedding = random.matrix(rows, width, spread=INITIALIZER_RANGE)
    yield "word_embeddings.weight", embedding
    yield from norm("word_embeddings_layernorm")
    for layer in range(sizes.n_layer):
        prefix = f"h.{layer}"
        yield from norm(f"{prefix}.input_layernorm")
        yield from linear(f"{prefix}.self_attention.query_key_value", 3 * width, width)
        yield from linear(f"{prefix}.self_attention.dense", width, width)
        yield from norm(f"{prefix}.post_attention_layernorm")
        yield from linear(f"{prefix}.mlp.dense_h_to_4h", 4 * width, width)
        yield from linear(f"{prefix}.mlp.dense_4h_to_h", width, 4 * width)
    yield from norm("ln_f")
    if with_head:
        yield "lm_head.weight", embedding.clone()
