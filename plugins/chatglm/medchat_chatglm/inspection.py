"""Recognises and describes a first-generation ChatGLM's folder, from headers alone.

Imports neither torch nor transformers: `models show` runs this.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medchat.checkpoints.config_json import ConfigValues
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import open_checkpoint, readable_config
from medchat.checkpoints.packed_weights import with_packed_weights
from medchat.checkpoints.stated_template import with_template
from medchat.plugin_kit import CheckpointError, ModelCard, say
from medchat_chatglm.config_file import generation_of
from medchat_chatglm.prompts import chatglm_template
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_chatglm.vocabulary import FILE_NAME

MODEL_TYPE = "chatglm"
EMBEDDING, HEAD = "transformer.word_embeddings.weight", "lm_head.weight"
PREFIX = "transformer.prefix_encoder."
#: The class's defaults for keys that the file lacks (docs/specs/models.md, "ChatGLM-6B configuration").
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 150528,
    "hidden_size": 4096,
    "num_layers": 28,
    "max_sequence_length": 2048,
}
#: Keys of ChatGLM2, ChatGLM3 and GLM-4, which share only the model type.
_LATER_KEYS = ("ffn_hidden_size", "kv_channels", "multi_query_attention", "padded_vocab_size", "rmsnorm")


def is_first_generation(config: Mapping[str, Any]) -> bool:
    """Return whether the object in a config.json is a ChatGLM v1's, by its keys."""
    if config.get("model_type") != MODEL_TYPE:
        return False
    own_keys = "inner_hidden_size" in config or "position_encoding_2d" in config
    return own_keys or not any(key in config for key in _LATER_KEYS)


def refuse_other_models(config: Mapping[str, Any], folder: Path) -> None:
    """Raise CheckpointError saying what `folder` is instead, unless it is a first-generation ChatGLM."""
    if is_first_generation(config):
        return
    found = config.get("model_type") or say("未注明类型的模型", "a model of no stated type")
    if found == MODEL_TYPE:
        found = say("ChatGLM2、ChatGLM3 或 GLM-4", "ChatGLM2, ChatGLM3 or GLM-4")
    raise CheckpointError(
        say(
            f"这是 {found}，不是第一代 ChatGLM-6B，结构完全不同",
            f"this is {found}, not the first ChatGLM-6B: another architecture",
        ),
        say(
            "请换用 chatglm-6b 系列的权重，或换用支持它的 --backbone（medchat plugins list）",
            "use weights of the chatglm-6b family, or a --backbone that supports it (medchat plugins list)",
        ),
        where=str(folder / "config.json"),
    )


def inspect_chatglm(path: Path) -> ModelCard | None:
    """Describe a checkpoint folder, or return None if it is not a first-generation ChatGLM.

    Raises CheckpointError if it is one and a file of it is missing or damaged.
    """
    config = readable_config(path)
    if config is None or not is_first_generation(config):
        return None
    checkpoint = open_checkpoint(path)
    headers = read_headers(checkpoint)
    values = ConfigValues(config, path / "config.json")
    shape = {key: values.size(key, default=default) for key, default in DEFAULTS.items()}
    bits = config.get("quantization_bit") or 0
    generation = generation_of(config)
    card = ModelCard(
        backbone="chatglm",
        family="ChatGLM-6B",
        path=path,
        vocab_size=shape["vocab_size"],
        layers=shape["num_layers"],
        hidden_size=shape["hidden_size"],
        parameters=_count_parameters(headers, config),
        dtypes=tuple(sorted({header.dtype for header in headers.values()})),
        weight_bytes=sum(header.byte_count for header in headers.values()),
        context_length=shape["max_sequence_length"],
        template="",
        quantization=f"int{bits}" if bits in (4, 8) else "none",
        notes=(*checkpoint.notes, *_notes(path, config, headers)),
        generation="v0 (icetk)" if generation == "v0" else "v1.1",
    )
    card = with_packed_weights(card, _counted(headers, config), config)
    return with_template(card, lambda: chatglm_template(path))


def read_chatglm_vocabulary(folder: Path, config: Mapping[str, Any]) -> ChatGLMTokenizer:
    """Read the tokenizer of `folder` and compare its ids with those of `config`, its configuration.

    config.json may leave ids to the class's defaults; a caller that has the class passes them filled in.
    Raises CheckpointError: missing or damaged vocabulary, or one of the other generation.
    """
    tokenizer = ChatGLMTokenizer.from_folder(folder)
    tokenizer.check_belongs(config, folder)
    if tokenizer.generation == "v0" and tokenizer.num_image_tokens == 0:
        raise CheckpointError(
            say(
                f"词表与权重不匹配：{folder / FILE_NAME} 是 icetk 时期的文件，"
                f"而 {folder / 'config.json'} 的编号没有图像词元",
                f"the vocabulary does not match: {folder / FILE_NAME} is of the icetk era, but the ids of "
                f"{folder / 'config.json'} leave no room for image tokens",
            ),
            say(
                f"请换上与权重同一版本的 {FILE_NAME}",
                f"put the {FILE_NAME} published with these weights there",
            ),
        )
    return tokenizer


def is_tied(config: Mapping[str, Any]) -> bool:
    """Return whether the head is the embedding, which is the default (docs/specs/models.md, "Tied head")."""
    return config.get("tie_word_embeddings") is not False or bool(config.get("quantization_embeddings"))


def _counted(headers: Mapping[str, TensorHeader], config: Mapping[str, Any]) -> list[TensorHeader]:
    """Return the tensors that count as weights of the model: a tied head once, no scales or tables."""
    return [
        header
        for name, header in headers.items()
        if not name.endswith((".inv_freq", ".weight_scale"))
        and not (name.startswith("lm_head.") and is_tied(config))
    ]


def _count_parameters(headers: Mapping[str, TensorHeader], config: Mapping[str, Any]) -> int:
    """Count weights as in the model, packed integers unpacked."""
    total = 0
    for header in _counted(headers, config):
        packed = header.dtype == "int8" and config.get("quantization_bit") == 4
        total += header.count * (2 if packed else 1)
    return total


def _notes(path: Path, config: Mapping[str, Any], headers: Mapping[str, TensorHeader]) -> tuple[str, ...]:
    notes = []
    rule = config.get("medchat_position_rule") or ("med" if generation_of(config) == "v0" else "v11")
    notes.append(say(f"位置规则：{rule}", f"position rule: {rule}"))
    try:
        read_chatglm_vocabulary(path, config)
    except CheckpointError as error:
        notes.append(say(f"无法对话：{error.what}", f"it cannot chat: {error.what}"))
    if any(name.startswith(PREFIX) for name in headers):
        if EMBEDDING in headers:
            notes.append(say("含 P-tuning 前缀", "with a P-tuning prefix"))
        else:
            notes.append(
                say("仅含 P-tuning 前缀，请用作 --adapter", "a P-tuning prefix alone: pass it as --adapter")
            )
    if HEAD in headers and not is_tied(config):
        notes.append(say("输出层与词嵌入不共享", "the output head is not tied to the embedding"))
    return tuple(notes)
