"""A checkpoint folder of plain transformers as one GGUF file, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import safe_open

from medchat.plugin_kit import UsageError, read_json, say
from medchat_export.gguf_tensors import Array, Sizes, contiguous, gguf_name, kept_in_float32, reordered
from medchat_export.gguf_vocabulary import TokenIds, damaged_file, write_byte_level, write_sentencepiece

ARCHITECTURES = ("llama", "bloom")
#: What weights become, by what `--type` takes: their type, that of the two ends, the file's.
_TYPES: Mapping[str, tuple[GGMLQuantizationType, GGMLQuantizationType, LlamaFileType]] = {
    "F16": (GGMLQuantizationType.F16, GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    # A quarter of an error in the embedding or the head is in every answer: they keep eight bits.
    "Q4_0": (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q4_0),
}
TYPES = tuple(_TYPES)
#: Numbers that are quantised together; rows of any other length stay as they are.
_GROUP = 32
_ENDS = ("token_embd.weight", "output.weight")
_MOST_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Labels:
    """What is written into the file for people and programs that read it."""

    name: str
    licence: str
    chat_template: str


def require_known(config: Mapping[str, Any], where: Path) -> str:
    """Return the architecture, one of `ARCHITECTURES`. Raises UsageError for a model that llama.cpp has not."""
    kind = config.get("model_type")
    if kind == "chatglm":
        raise UsageError(
            say(
                "llama.cpp 里的 ChatGLM 是第三代和 GLM-4，与第一代 ChatGLM-6B 只是类名相同，不能转换",
                "llama.cpp's ChatGLM is the third generation and GLM-4: ChatGLM-6B only shares the class's name, "
                "and cannot be converted",
            ),
            say(
                "用 medchat export merge 导出，由 MedChat 加载",
                "use medchat export merge, and load it in MedChat",
            ),
            where=str(where),
        )
    if kind not in ARCHITECTURES:
        raise UsageError(
            say(f"不能把 {kind} 转换为 GGUF", f"{kind} cannot be converted to GGUF"),
            say(f"可以转换：{'、'.join(ARCHITECTURES)}", f"what can be: {', '.join(ARCHITECTURES)}"),
            where=str(where),
        )
    if kind == "bloom" and config.get("apply_residual_connection_post_layernorm"):
        raise UsageError(
            say(
                "llama.cpp 不支持 apply_residual_connection_post_layernorm 为 true 的 Bloom",
                "llama.cpp has no Bloom with apply_residual_connection_post_layernorm true",
            ),
            say("用 medchat export merge 导出", "use medchat export merge"),
            where=str(where),
        )
    return str(kind)


def stated_config(folder: Path) -> dict[str, Any]:
    """Return config.json. Raises CheckpointError: missing, damaged."""
    file = folder / "config.json"
    try:
        found = read_json(file, _MOST_CONFIG_BYTES)
        if not isinstance(found, dict):
            raise ValueError(say("不是 JSON 对象", "no JSON object"))
    except (OSError, ValueError) as error:
        raise damaged_file("config.json", file, error) from error
    return found


def write_gguf(
    folder: Path, output: Path, kind: str, labels: Labels, watch: Callable[[int, int], None]
) -> None:
    """Write the GGUF file of a checkpoint folder whose weights are one model.safetensors.

    `watch` is called with the tensors written so far and in all. Raises UsageError for an architecture that llama.cpp
    has not, CheckpointError, OSError.
    """
    config = stated_config(folder)
    architecture = require_known(config, folder)
    weights = folder / "model.safetensors"
    writer = GGUFWriter(str(output), architecture)
    try:
        _write_facts(writer, architecture, config, labels, _TYPES[kind][2])
        _write_vocabulary(writer, architecture, folder, config)
        with safe_open(weights, framework="numpy") as file:
            plan = list(_planned(file, architecture, kind))
            for tensor in plan:
                writer.add_tensor_info(
                    tensor.name, tensor.stored_shape, tensor.stored_dtype, tensor.size, tensor.kind
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            sizes = _sizes(architecture, config)
            for number, tensor in enumerate(plan, start=1):
                writer.write_tensor_data(_converted(file.get_tensor(tensor.source), tensor, sizes))
                watch(number, len(plan))
    finally:
        writer.close()


@dataclass(frozen=True, slots=True)
class _Planned:
    source: str
    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def _is_plain(self) -> bool:
        return self.kind in (GGMLQuantizationType.F16, GGMLQuantizationType.F32)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the array that is written: bytes where the weights are quantised."""
        return self.shape if self._is_plain else tuple(quant_shape_to_byte_shape(self.shape, self.kind))

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        plain = np.float16 if self.kind is GGMLQuantizationType.F16 else np.float32
        return np.dtype(plain if self._is_plain else np.uint8)

    @property
    def size(self) -> int:
        return int(np.prod(self.stored_shape)) * self.stored_dtype.itemsize


def _planned(file: Any, architecture: str, kind: str) -> Iterator[_Planned]:
    body, ends, _ = _TYPES[kind]
    for source in file.keys():  # noqa: SIM118 - the file is no mapping
        shape = tuple(file.get_slice(source).get_shape())
        name = gguf_name(architecture, source)
        chosen = GGMLQuantizationType.F32 if kept_in_float32(shape) else ends if name in _ENDS else body
        if kind != "F16" and shape[-1] % _GROUP and not kept_in_float32(shape):
            chosen = GGMLQuantizationType.F16
        yield _Planned(source, name, shape, chosen)


def _converted(values: Array, tensor: _Planned, sizes: Sizes) -> Array:
    ordered = reordered(tensor.name, values, sizes)
    if tensor.kind is GGMLQuantizationType.F16:
        return contiguous(ordered, np.float16)
    plain = contiguous(ordered, np.float32)
    return plain if tensor.kind is GGMLQuantizationType.F32 else quantize(plain, tensor.kind)


def _sizes(architecture: str, config: Mapping[str, Any]) -> Sizes:
    if architecture == "bloom":
        return Sizes(config["n_head"], config["n_head"])
    return Sizes(config["num_attention_heads"], config["num_key_value_heads"])


def _write_facts(
    writer: GGUFWriter, architecture: str, config: Mapping[str, Any], labels: Labels, kind: LlamaFileType
) -> None:
    sizes, width = _sizes(architecture, config), config["hidden_size"]
    writer.add_name(labels.name)
    if labels.licence:
        writer.add_license(labels.licence)
    if labels.chat_template:
        writer.add_chat_template(labels.chat_template)
    writer.add_file_type(kind)
    writer.add_embedding_length(width)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.key_value_heads)
    if architecture == "llama":
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(width // sizes.heads)
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_vocab_size(config["vocab_size"])
    else:
        writer.add_context_length(config.get("seq_length", 2048))
        writer.add_block_count(config["n_layer"])
        writer.add_feed_forward_length(4 * width)
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def _write_vocabulary(writer: GGUFWriter, architecture: str, folder: Path, config: Mapping[str, Any]) -> None:
    ids = TokenIds(config["bos_token_id"], config["eos_token_id"], config["pad_token_id"])
    write = write_sentencepiece if architecture == "llama" else write_byte_level
    write(writer, folder, config["vocab_size"], ids)
