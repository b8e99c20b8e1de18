"""Loads a model and its tokenizer from a checkpoint folder in any published layout.

Everything that needs no weights (configuration, vocabulary, names and shapes, memory) is checked before the
first weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from medchat.checkpoints.adapter_folder import files_passed_over
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.checkpoints.packed_weights import holds_packed, is_packed
from medchat.checkpoints.weight_files import Checkpoint
from medchat.inference.adapters.structure import Structure
from medchat.inference.device import ensure_memory, pick_device, pick_dtype
from medchat.inference.engine import give_to_engine, prepare_for_engine
from medchat.inference.kept_weights import with_kept_weights
from medchat.inference.load_weights import Placement, assign, check_finite, loaded_weight_bytes, require_match
from medchat.inference.quantization import bits_of, conversions
from medchat.inference.quantized_head import with_own_head
from medchat.inference.quick_start import wanted_engine
from medchat.inference.shards import read_tensors
from medchat.inference.stored_linear import (
    expect_stored,
    refuse_other_width,
    refuse_second_quantization,
)
from medchat.plugin_kit import CheckpointError, LoadOptions, UsageError, say
from medchat_chatglm.adapters import (
    PREFIX_FILES,
    Adapter,
    PrefixAdapter,
    attach_chatglm_adapters,
    check_chatglm_fit,
    find_prefix,
    open_chatglm_adapter,
    refuse_other_generation,
)
from medchat_chatglm.config_reading import with_stated_rule
from medchat_chatglm.configuration import ChatGLMConfig, read_configuration
from medchat_chatglm.inspection import (
    EMBEDDING,
    HEAD,
    PREFIX,
    is_tied,
    read_chatglm_vocabulary,
)
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.tokenizer import ChatGLMTokenizer

#: Tensors that keep the dtype that the model declares: norms and prefix in float32, scales in float16.
_KEPT = ("*layernorm.weight", "*layernorm.bias", f"{PREFIX}*", "*.weight_scale")
#: Stored tables that are always recomputed (docs/specs/models.md, "ChatGLM-6B tensors").
_IGNORED = ("*.rotary_emb.inv_freq",)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A model in evaluation mode. `notes` are for the user, in the interface language.

    `adapters` are attached to it, `bare` is the model without them.
    """

    model: ChatGLMForConditionalGeneration
    config: ChatGLMConfig
    folder: Path
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...]
    adapters: tuple[Adapter, ...]
    bare: Structure
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class LoadedModel(LoadedWeights):
    """A model with the tokenizer that its folder holds."""

    tokenizer: ChatGLMTokenizer


@dataclass(frozen=True, slots=True)
class PreparedWeights:
    """Everything known before the first weight is read; `model` is on the meta device."""

    model: ChatGLMForConditionalGeneration
    config: ChatGLMConfig
    adapters: list[Adapter]
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    placement: Placement


def load_model(options: LoadOptions) -> LoadedModel:
    """Load `options.model` with its tokenizer and adapters.

    Raises CheckpointError (missing, damaged, not a ChatGLM v1, mismatched), MemoryShortageError (before
    reading if possible) or UsageError (invalid device, dtype, rule, quantisation or engine).
    """
    config = read_configuration(options.model, with_stated_rule(options))
    tokenizer = read_chatglm_vocabulary(options.model, config.to_dict())
    weights = load_weights(options)
    stated = {part.name: getattr(weights, part.name) for part in fields(weights)}
    return LoadedModel(**stated, tokenizer=tokenizer)


def check_checkpoint(options: LoadOptions) -> None:
    """Check the folder, its vocabulary and the adapters without reading weights. Raises what `load_model` raises."""
    prepared = prepare_weights(options)
    read_chatglm_vocabulary(options.model, prepared.config.to_dict())


def load_weights(options: LoadOptions) -> LoadedWeights:
    """Load `options.model` and its adapters without a tokenizer. Raises what `load_model` raises."""
    original = prepare_weights(options)
    prepared, kept = with_kept_weights(original, options)
    model, placement = prepared.model, prepared.placement
    assign(model, prepared.checkpoint, prepared.headers, placement)
    give_to_engine(wanted_engine(options), model, placement.device)
    bare = Structure(model)
    attach_chatglm_adapters(model, prepared.adapters, placement.device, placement.dtype)
    notes = (
        *_compare_head(model, prepared.checkpoint, prepared.headers),
        *files_passed_over(original.checkpoint, prepared.adapters),
        *kept,
    )
    return LoadedWeights(
        model.eval(),
        prepared.config,
        options.model,
        placement.device,
        placement.dtype,
        notes,
        tuple(prepared.adapters),
        bare,
        original.checkpoint,
    )


def prepare_weights(options: LoadOptions) -> PreparedWeights:
    """Check everything that needs no weights. Raises what `load_model` raises."""
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    config = read_configuration(options.model, with_stated_rule(options))
    checkpoint = open_checkpoint(options.model)
    headers = read_headers(checkpoint)
    _refuse_other_shape(config, checkpoint, headers)
    packed = holds_packed(headers)
    bits = 0 if packed else _bits_to_make(options, config)
    adapters = [open_chatglm_adapter(folder) for folder in options.adapters]
    refuse_other_generation(adapters, config.generation)
    own_prefix = _prepare_prefix(config, options.model, headers, adapters)
    config.quantization_bit = bits or config.quantization_bit
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config).eval()
    mapped = expect_stored(model, headers)
    if mapped:
        refuse_other_width(model, options.quantize)
    more = prepare_for_engine(wanted_engine(options), model, device, quantising=bool(bits))
    placement = Placement(
        dtype,
        device,
        ignore=_IGNORED if own_prefix else (*_IGNORED, f"{PREFIX}*"),
        keep=_KEPT,
        optional=() if own_prefix else (f"{PREFIX}*",),
        tied=model._tied_weights_keys if is_tied(config.to_dict()) else {},
        conversions=conversions(model) if bits else {},
        mapped=mapped,
        watch=options.watch,
    )
    placement = with_own_head(placement, model)
    ensure_memory(loaded_weight_bytes(model, placement) + more, device)
    check_chatglm_fit(model, adapters)
    require_match(model, checkpoint, headers, placement)
    return PreparedWeights(model, config, adapters, checkpoint, headers, placement)


# ---------------------------------------------------------------- weights


def _refuse_other_shape(
    config: ChatGLMConfig, checkpoint: Checkpoint, headers: Mapping[str, TensorHeader]
) -> None:
    """Refuse a config.json of other sizes than the tensors before building that model, which may be huge."""
    embedding = headers.get(EMBEDDING)
    if any(name.startswith(PREFIX) for name in headers) and embedding is None:
        raise CheckpointError(
            say("这里只有 P-tuning 前缀，没有模型", "this is a P-tuning prefix without a model"),
            say(
                "请用 --model 指定底座，用 --adapter 指定它",
                "pass the base as --model and this as --adapter",
            ),
            where=str(checkpoint.folder),
        )
    stored = {name.split(".")[2] for name in headers if name.startswith("transformer.layers.")}
    found = None
    if embedding is not None and embedding.shape[0] != config.vocab_size:
        found = f"vocab_size {config.vocab_size}, {EMBEDDING} {'x'.join(map(str, embedding.shape))}"
    elif len(stored) != config.num_layers:
        found = f"num_layers {config.num_layers}, transformer.layers {len(stored)}"
    if found:
        raise CheckpointError(
            say(f"config.json 与权重不匹配（{found}）", f"config.json does not fit the weights ({found})"),
            say("请确认二者来自同一模型，且下载完整", "check that both belong together and are complete"),
            where=str(checkpoint.folder / "config.json"),
        )


def _bits_to_make(options: LoadOptions, config: ChatGLMConfig) -> int:
    """Return the width to quantise to while loading; 0 for none. Raises UsageError if the weights are quantised."""
    stored = config.quantization_bit
    bits = bits_of(options.quantize)
    refuse_second_quantization(stored, options.quantize)
    return 0 if stored else bits


def _prepare_prefix(
    config: ChatGLMConfig, folder: Path, headers: Mapping[str, TensorHeader], adapters: list[Adapter]
) -> bool:
    """Set the prefix's shape in `config`; return whether the model's own files hold the prefix.

    A prefix among `adapters` takes precedence over the model's own. One in a separate file next to the
    weights is added to `adapters`.
    """
    chosen = [adapter for adapter in adapters if isinstance(adapter, PrefixAdapter)]
    if len(chosen) > 1:
        raise UsageError(
            say("一次只能使用一个 P-tuning 前缀", "only one P-tuning prefix can be used at a time"),
            say("请只保留一个这样的 --adapter", "keep one such --adapter"),
        )
    stored = any(name.startswith(PREFIX) for name in headers)
    if not chosen and config.pre_seq_len and not stored:
        if not any((folder / name).is_file() for name, _ in PREFIX_FILES):
            raise CheckpointError(
                say(
                    "这个模型需要 P-tuning 前缀，但权重里没有",
                    "the model asks for a P-tuning prefix its weights lack",
                ),
                say(
                    "请用 --adapter 指定 P-tuning 检查点，或从 config.json 去掉 pre_seq_len",
                    "pass the P-tuning checkpoint as --adapter, or remove pre_seq_len from config.json",
                ),
                where=str(folder),
            )
        chosen = [find_prefix(folder)]
        adapters += chosen
    if chosen:
        config.pre_seq_len, config.prefix_projection = chosen[0].shape()
    return stored and not chosen


def _compare_head(
    model: ChatGLMForConditionalGeneration, checkpoint: Checkpoint, headers: Mapping[str, TensorHeader]
) -> tuple[str, ...]:
    """Return a note if a stored head, unused because it is tied, differs from the embedding.

    Reads it in pieces, so that it is never completely in memory (docs/specs/models.md, "Tied head"). A packed one was
    made from the embedding. Raises CheckpointError if it contains NaN or infinity: such a file is damaged.
    """
    if HEAD not in headers or is_packed(headers[HEAD]) or not is_tied(model.config.to_dict()):
        return ()
    if model.config.quantization_embeddings:
        return ()
    embedding = model.get_parameter(EMBEDDING)
    same = True
    for head in read_tensors(checkpoint, headers[HEAD].name.__eq__):
        for rows, piece in head.pieces():
            check_finite(head, piece)
            same = same and torch.equal(piece.to(embedding.dtype), embedding[rows].cpu())
    if same:
        return ()
    return (
        say(
            "文件中的输出层与词嵌入不同；已按惯例共用词嵌入。若确为独立的输出层，"
            '请在 config.json 写入 "tie_word_embeddings": false',
            "the stored output head differs from the embedding, which is used for both as usual; if the head "
            'is its own, put "tie_word_embeddings": false into config.json',
        ),
    )
