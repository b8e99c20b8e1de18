"""Writes a tiny ChatGLM-6B with random weights, in the published layout.

Layout from docs/specs/models.md, "ChatGLM-6B tensors" and related headings, written without the model's own
code, so that an error there cannot hide in its test data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

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
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_chatglm.vocabulary import FILE_NAME, train_chatglm_vocabulary

GENERATIONS = ("v11", "v0")

#: Standard deviation of the random matrices, the usual one for models of this family.
INITIALIZER_RANGE = 0.02
# The published embeddings have more rows than there are pieces: 130528 for 130344.
_ROWS_MULTIPLE = 64

#: Words of the prompt templates; always part of the vocabulary's corpus, so that no prompt needs byte tokens.
_PROMPT_FORMS = ("[Round 0]", "问：", "答：", "问题：", "回答: ", "答案：", "0 1 2 3 4 5 6 7 8 9")
#: The corpus when none is given.
_CORPUS = (
    "你好，很高兴认识你。请问今天有什么可以帮你的吗？",
    "我最近睡得不太好，晚上总是醒，白天没有精神。",
    "感冒以后要多喝温水，注意休息，房间里要常常通风。",
    "头痛、头晕、恶心的时候，先坐下来休息一会儿，看看有没有好转。",
    "如果突然胸痛、喘不上气，或者一侧手脚没有力气，请马上拨打120。",
    "饮食清淡一些，多吃蔬菜和水果，少吃油炸的东西。",
    "医生会根据检查的结果来判断，不要自己随便停药。",
    "血压要在安静的时候量，连续量几天，把数字记下来给医生看。",
    "小孩发烧的时候，要看他的精神好不好，能不能喝水。",
    "每天走走路，晒晒太阳，对心情和身体都有好处！",
    "这个问题我不能确定，建议你带上以前的病历去医院看一看。",
    "谢谢你的回答；我明白了，下次再来问你。",
    "Hello, how are you today? I have a question about my health.",
    "Drink enough water, sleep well, and go for a walk every day.",
    "Please see a doctor if the pain does not go away.",
)


@dataclass(frozen=True, slots=True)
class TinyChatGLMShape:
    """The size of a tiny model. Heads must divide the width into multiples of four (two rotary halves)."""

    hidden_size: int = 64
    num_layers: int = 2
    num_attention_heads: int = 4
    inner_hidden_size: int = 256
    vocabulary_size: int = 1000

    def __post_init__(self) -> None:
        smallest = min(self.hidden_size, self.num_layers, self.num_attention_heads, self.inner_hidden_size)
        if smallest < 1 or self.hidden_size % (4 * self.num_attention_heads):
            raise impossible_shape(
                self,
                "各项都要大于 0，且 hidden_size 要能被 4×num_attention_heads 整除",
                "all must be positive, and hidden_size a multiple of 4 * num_attention_heads",
            )


def write_tiny_chatglm(
    path: Path,
    *,
    corpus: Iterable[str] = (),
    seed: int = 0,
    generation: str = "v11",
    layout: str = "sharded_bin",
    **shape: int,
) -> None:
    """Write a checkpoint folder: config.json, tokenizer_config.json, `ice_text.model` and the weights.

    The vocabulary is trained on `corpus` (a few sentences of our own if it is empty) and keeps Chinese
    punctuation, unlike the published one. `generation` "v0" has 20000 image rows first, the older vocabulary
    file and no mask ids in config.json. `layout` is one of `LAYOUTS`; `shape` are the fields of `TinyShape`.
    Norms are float32 and everything else float16, the head is stored in addition to the equal embedding, as
    published. The same arguments give the same weights. Raises UsageError for an impossible shape, an unknown
    choice, or a folder that is not empty.
    """
    sizes = TinyChatGLMShape(**shape)
    check_choice("generation", generation, GENERATIONS)
    check_choice("layout", layout, LAYOUTS)
    vocabulary = train_chatglm_vocabulary(
        [*(tuple(corpus) or _CORPUS), *_PROMPT_FORMS], sizes.vocabulary_size, icetk_era=generation == "v0"
    )
    begin_folder(path)
    (path / FILE_NAME).write_bytes(vocabulary)
    tokenizer = ChatGLMTokenizer(vocabulary)
    config = _config(sizes, tokenizer)
    write_json(path / "config.json", config)
    write_json(path / "tokenizer_config.json", _tokenizer_config(tokenizer))
    write_weights(path, dict(_tensors(sizes, config["vocab_size"], seed)), layout)


def _config(sizes: TinyChatGLMShape, tokenizer: ChatGLMTokenizer) -> dict[str, Any]:
    special = tokenizer.special_ids
    config: dict[str, Any] = {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "bos_token_id": special["<sop>"],
        "eos_token_id": special["<eop>"],
        "pad_token_id": special["<pad>"],
        "hidden_size": sizes.hidden_size,
        "inner_hidden_size": sizes.inner_hidden_size,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": 2048,
        "num_attention_heads": sizes.num_attention_heads,
        "num_layers": sizes.num_layers,
        "position_encoding_2d": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": -(-tokenizer.vocab_size // _ROWS_MULTIPLE) * _ROWS_MULTIPLE,
    }
    if tokenizer.generation == "v11":  # files of the older generation leave these to the class's defaults
        config |= {"mask_token_id": special["[MASK]"], "gmask_token_id": special["[gMASK]"]}
    return config


def _tokenizer_config(tokenizer: ChatGLMTokenizer) -> dict[str, Any]:
    generation_keys: dict[str, Any] = (
        {"eos_token": "</s>", "eop_token": "<eop>"}
        if tokenizer.generation == "v0"
        else {"eos_token": "<eop>", "end_token": "</s>", "num_image_tokens": 0}
    )
    return {
        "tokenizer_class": "ChatGLMTokenizer",
        "bos_token": "<sop>",
        "gmask_token": "[gMASK]",
        "mask_token": "[MASK]",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "remove_space": False,
        "do_lower_case": False,
        **generation_keys,
    }


# ---------------------------------------------------------------- weights


def _tensors(sizes: TinyChatGLMShape, rows: int, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of the checkpoint in the published order."""
    width, inner = sizes.hidden_size, sizes.inner_hidden_size
    random, norm = (
        RandomTensors(seed, INITIALIZER_RANGE),
        partial(layer_norm, width=width, dtype=torch.float32),
    )
    linear = random.linear
    embedding = random.matrix(rows, width)
    yield "transformer.word_embeddings.weight", embedding
    for layer in range(sizes.num_layers):
        prefix = f"transformer.layers.{layer}"
        yield from norm(f"{prefix}.input_layernorm")
        yield f"{prefix}.attention.rotary_emb.inv_freq", _frequencies(width // sizes.num_attention_heads)
        yield from linear(f"{prefix}.attention.query_key_value", 3 * width, width)
        yield from linear(f"{prefix}.attention.dense", width, width)
        yield from norm(f"{prefix}.post_attention_layernorm")
        yield from linear(f"{prefix}.mlp.dense_h_to_4h", inner, width)
        yield from linear(f"{prefix}.mlp.dense_4h_to_h", width, inner)
    yield from norm("transformer.final_layernorm")
    yield "lm_head.weight", embedding.clone()


def _frequencies(head_width: int) -> torch.Tensor:
    """Return the rotary frequencies of one half of a head, [head_width / 4], float16."""
    half = head_width // 2
    return (10000.0 ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)).half()
