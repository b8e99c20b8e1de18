"""From a LLaMA checkpoint folder in any published layout, and its adapters, to a model and its tokenizer.

What can be known without the weights (configuration, vocabulary, names and shapes, which adapter belongs
to which base, memory) is checked before the first weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from medchat.api import LoadOptions
from medchat.checkpoints.adapter_folder import (
    Adapter,
    base_notes,
    open_adapter,
    positions_taken,
    with_vocabulary,
    without_vocabulary,
)
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import Checkpoint, open_checkpoint
from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.errors import CheckpointError
from medchat.inference.chat_model import CausalChatModel, ModelFacts
from medchat.inference.device import ensure_memory, pick_device, pick_dtype
from medchat.inference.load_weights import Placement, assign, loaded_weight_bytes, require_match
from medchat.inference.quantization import bits_of, conversions, insert_quantized_linears
from medchat.language import say
from medchat_llama.folder import (
    EMBEDDING,
    HEAD,
    IGNORED,
    LlamaShape,
    base_of,
    check_llama_sizes,
    read_llama_shape,
    stored_rows,
)
from medchat_llama.tokenizer import LlamaTokenizer
from medchat_llama.vocabulary import find_vocabulary, rows_note

#: What `--quantize` packs: the linears of every layer. Norms, embedding and head stay as they are.
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LoadedLlama:
    """A model in evaluation mode with its tokenizer. `notes` are for the user, in the interface language.

    `base` is the published base that the weights are by their rows, adapters of a vocabulary included.
    """

    model: LlamaForCausalLM
    tokenizer: LlamaTokenizer
    shape: LlamaShape
    base: str
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedLlama:
    """All that is known before the first weight is read; `model` has none yet."""

    model: LlamaForCausalLM
    tokenizer: LlamaTokenizer
    shape: LlamaShape
    base: str
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...]
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    placement: Placement


def load_llama_chat(options: LoadOptions) -> CausalChatModel:
    """Load `options.model` with its adapters. Raises what `load_llama` raises."""
    loaded = load_llama(options)
    tuned = without_vocabulary(loaded.adapters)
    room = loaded.shape.context_length - positions_taken(loaded.adapters)
    details = {
        "vocab_size": loaded.model.config.vocab_size,
        "adapters": tuple(str(adapter.folder) for adapter in loaded.adapters),
        "quantization": options.quantize,
    }
    facts = ModelFacts("llama", options.model, room, details, loaded.notes)
    # Trained with a tokenizer whose special ids were all 0, BenTsao's adapters end an answer with that.
    # `<unk>` has no text that anybody would miss.
    ends = {loaded.tokenizer.id_of("<unk>")} if tuned else set()
    return CausalChatModel(loaded.model, loaded.tokenizer, facts, stop_ids=ends)


def load_llama(options: LoadOptions) -> LoadedLlama:
    """Load `options.model` and lay its adapters over it, those that bring a vocabulary first.

    Raises what `prepare_llama` raises, CheckpointError for damaged weights, MemoryShortageError.
    """
    prepared = prepare_llama(options)
    model, placement = prepared.model, prepared.placement
    assign(model, prepared.checkpoint, prepared.headers, placement)
    # Computed, not stored: on the meta device it has no values yet.
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(placement.device)
    if prepared.adapters:
        from medchat.inference.adapters.attach import attach_adapters  # brings peft: slow to import

        attach_adapters(model, prepared.adapters, placement.device, placement.dtype)
    return LoadedLlama(
        model.eval(), prepared.tokenizer, prepared.shape, prepared.base, prepared.adapters, prepared.notes
    )


def prepare_llama(options: LoadOptions) -> PreparedLlama:
    """Check all that can be checked without reading weights.

    Raises CheckpointError (missing, damaged, not LLaMA, not matching), MemoryShortageError where it can be
    known, or UsageError (impossible device, dtype or quantisation).
    """
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    bits = bits_of(options.quantize)
    shape = read_llama_shape(options.model)
    checkpoint = open_checkpoint(options.model)
    headers = read_headers(checkpoint)
    check_llama_sizes(shape, headers, options.model)
    adapters = _in_order(options)
    grown = next(iter(with_vocabulary(adapters)), None)
    stored = stored_rows(headers, shape)
    rows = _rows_of(grown) if grown else stored
    tokenizer = find_vocabulary(options.model, rows, grown.folder if grown else None)
    notes = [*rows_note(shape, stored, options.model)]
    for adapter in adapters:
        notes += base_notes(adapter, base_of(stored if adapter is grown else rows))
    with torch.device("meta"):
        model = LlamaForCausalLM(_library_config(shape, rows, tokenizer)).eval()
    if bits:
        insert_quantized_linears(model, bits, LINEARS)
    saved = tuple(grown.saved) if grown else ()
    placement = Placement(
        dtype,
        device,
        ignore=(*IGNORED, *saved),
        optional=saved,
        keep=("*.weight_scale",),
        tied={HEAD: EMBEDDING} if shape.tied else {},
        conversions=conversions(model),
    )
    ensure_memory(loaded_weight_bytes(model, placement), device)
    if adapters:
        from medchat.inference.adapters.attach import check_fit  # brings peft: slow to import

        check_fit(model, adapters)
    require_match(model, checkpoint, headers, placement)
    return PreparedLlama(
        model,
        tokenizer,
        shape,
        base_of(rows),
        tuple(adapters),
        tuple(notes),
        checkpoint,
        headers,
        placement,
    )


def _in_order(options: LoadOptions) -> list[Adapter]:
    """Open the adapters; the one that brings a vocabulary first: the others were trained on top of it."""
    adapters = [open_adapter(folder) for folder in options.adapters]
    grown = with_vocabulary(adapters)
    if len(grown) > 1:
        raise CheckpointError(
            say("只能有一个适配器自带词表", "only one adapter can bring a vocabulary of its own"),
            say("请只保留一个这样的 --adapter", "keep one such --adapter"),
            where=", ".join(str(adapter.folder) for adapter in grown),
        )
    for adapter in grown:
        if set(adapter.saved) != {EMBEDDING, HEAD}:
            raise CheckpointError(
                say(
                    f"不支持这种适配器：modules_to_save 应为词嵌入和输出层，实际是 {', '.join(adapter.saved)}",
                    "this kind of adapter is not supported: it saves not embedding and head but "
                    f"{', '.join(adapter.saved)}",
                ),
                say(
                    "请先用训练它的工具合并，再用 --model 加载",
                    "merge it with its own tool and pass that as --model",
                ),
                where=str(adapter.folder),
            )
    return [*grown, *without_vocabulary(adapters)]


def _rows_of(adapter: LoraAdapter) -> int:
    shape = adapter.saved[EMBEDDING].shape
    return shape[0] if shape else 0


def _library_config(shape: LlamaShape, rows: int, tokenizer: LlamaTokenizer) -> LlamaConfig:
    """Return the library's configuration; no other key of config.json reaches it."""
    return LlamaConfig(
        vocab_size=rows,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.inner_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlamaForCausalLM"],
    )
