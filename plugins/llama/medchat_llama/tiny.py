"""Writes a tiny LLaMA with random weights, in decapoda's published layout.

Layout from docs/specs/models.md, "LLaMA and Chinese-Alpaca", wrong ids and class names included; written
without the library's model, so that an error in its use cannot hide in its test data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medchat.inference.write_checkpoint import (
    LAYOUTS,
    RandomTensors,
    begin_folder,
    check_choice,
    impossible_shape,
    write_json,
    write_weights,
)
from medchat_llama.tokenizer import FILE_NAME, LlamaTokenizer
from medchat_llama.vocabulary import train_llama_vocabulary

#: "decapoda": the first conversion, with its errors. "repaired": like huggyllama's.
STYLES = ("decapoda", "repaired")
#: Standard deviation of the random matrices, the usual one for models of this family.
INITIALIZER_RANGE = 0.02

#: The corpus when none is given; the prompt templates are part of it, so that no prompt needs byte tokens.
_CORPUS = (
    "下面是一个问题，运用医学知识来正确回答提问.",
    "### 问题: ### 回答: ### 说明: ### 回复:",
    "以下是描述任务的说明，编写适当地回复完成请求的响应。",
    "我最近总是头晕，早上起来的时候更明显，是血压高吗？",
    "先坐下来休息，量一量血压；如果还是不舒服，请去医院检查。",
    "感冒了要多喝温水，注意保暖，发烧超过三天要看医生。",
    "肚子疼得厉害、吐血或者便血，请马上拨打120。",
    "药要按医生说的吃，不要自己加量，也不要突然停。",
    "晚上睡不好，可以少喝咖啡，睡前一小时不看手机。",
    "检查报告上的数字要和症状一起看，请带给医生。",
    "老人走路不稳，家里要把地上的东西收拾好，防止摔倒！",
    "这个问题我不能确定，建议到医院做进一步检查。",
    "Below is an instruction that describes a task. Write a response.",
    "I have had a cough for a week and feel tired in the morning.",
    "Drink water, rest, and see a doctor if it does not get better.",
    "0 1 2 3 4 5 6 7 8 9",
)


@dataclass(frozen=True, slots=True)
class TinyLlamaShape:
    """The size of a tiny model. Heads must divide the width into even parts."""

    hidden_size: int = 64
    intermediate_size: int = 172
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    vocabulary_size: int = 800

    def __post_init__(self) -> None:
        smallest = min(
            self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.num_attention_heads
        )
        if smallest < 1 or self.hidden_size % (2 * self.num_attention_heads):
            raise impossible_shape(
                self,
                "各项都要大于 0，且 hidden_size 要能被 2×num_attention_heads 整除",
                "all must be positive, and hidden_size a multiple of 2 * num_attention_heads",
            )


def write_tiny_llama(
    path: Path,
    *,
    corpus: Iterable[str] = (),
    seed: int = 0,
    style: str = "decapoda",
    layout: str = "sharded_bin",
    **shape: int,
) -> None:
    """Write a checkpoint folder: the small files, `tokenizer.model` and the weights in float16.

    The vocabulary is trained on `corpus` (a few sentences of our own if it is empty). `style` is one of
    `STYLES`, `layout` one of `write_checkpoint.LAYOUTS`; `shape` are the fields of `TinyShape`. The same
    arguments give the same weights. Raises UsageError for an impossible shape, an unknown choice, or a
    folder that is not empty.
    """
    sizes = TinyLlamaShape(**shape)
    check_choice("style", style, STYLES)
    check_choice("layout", layout, LAYOUTS)
    vocabulary = train_llama_vocabulary(tuple(corpus) or _CORPUS, sizes.vocabulary_size)
    begin_folder(path)
    (path / FILE_NAME).write_bytes(vocabulary)
    rows = LlamaTokenizer(vocabulary).size
    for name, content in small_files(sizes, rows, style).items():
        write_json(path / name, content)
    write_weights(path, dict(_tensors(sizes, rows, seed, style)), layout)


def small_files(sizes: TinyLlamaShape, rows: int, style: str) -> dict[str, dict[str, Any]]:
    """Return config.json and its companions as they were published in that style."""
    faulty = style == "decapoda"
    bos, eos = (0, 1) if faulty else (1, 2)
    config = {
        "architectures": ["LLaMAForCausalLM" if faulty else "LlamaForCausalLM"],
        "bos_token_id": bos,
        "eos_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "initializer_range": INITIALIZER_RANGE,
        ("max_sequence_length" if faulty else "max_position_embeddings"): 2048,
        "model_type": "llama",
        "num_attention_heads": sizes.num_attention_heads,
        "num_hidden_layers": sizes.num_hidden_layers,
        "pad_token_id": -1 if faulty else 0,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": rows,
    }
    tokenizer = (
        {"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LLaMATokenizer"}
        if faulty
        else {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "tokenizer_class": "LlamaTokenizer",
        }
    )
    return {
        "config.json": config,
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": 0},
        "tokenizer_config.json": {**tokenizer, "model_max_length": 2048},
        "special_tokens_map.json": {},
    }


def _tensors(sizes: TinyLlamaShape, rows: int, seed: int, style: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of the checkpoint; decapoda's style stores the rotary frequencies too."""
    width, inner = sizes.hidden_size, sizes.intermediate_size
    matrix = RandomTensors(seed, INITIALIZER_RANGE).matrix
    yield "model.embed_tokens.weight", matrix(rows, width)
    for layer in range(sizes.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            yield f"{prefix}.self_attn.{name}_proj.weight", matrix(width, width)
        if style == "decapoda":
            half = width // sizes.num_attention_heads // 2
            frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
            yield f"{prefix}.self_attn.rotary_emb.inv_freq", frequencies
        yield f"{prefix}.mlp.gate_proj.weight", matrix(inner, width)
        yield f"{prefix}.mlp.down_proj.weight", matrix(width, inner)
        yield f"{prefix}.mlp.up_proj.weight", matrix(inner, width)
        yield f"{prefix}.input_layernorm.weight", torch.ones(width).half()
        yield f"{prefix}.post_attention_layernorm.weight", torch.ones(width).half()
    yield "model.norm.weight", torch.ones(width).half()
    yield "lm_head.weight", matrix(rows, width)
