"""From a Bloom checkpoint folder in any published layout, and its adapters, to a model and its tokenizer.

What can be known without the weights (configuration, vocabulary, names and shapes, memory) is checked
before the first weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import BloomConfig, BloomForCausalLM

from medchat.api import LoadOptions
from medchat.checkpoints.adapter_folder import Adapter, base_notes, open_adapter, positions_taken
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import Checkpoint, open_checkpoint
from medchat.inference.chat_model import CausalChatModel, ModelFacts
from medchat.inference.decode import TextFilter, Unchanged
from medchat.inference.device import ensure_memory, pick_device, pick_dtype
from medchat.inference.load_weights import Placement, assign, loaded_weight_bytes, require_match
from medchat.inference.quantization import bits_of, conversions, insert_quantized_linears
from medchat_bloom.folder import (
    EMBEDDING,
    HEAD,
    IGNORED,
    BloomShape,
    check_bloom_sizes,
    read_bloom_shape,
    without_model_prefix,
)
from medchat_bloom.inspection import read_bloom_vocabulary
from medchat_bloom.tokenizer import BloomTokenizer

#: What `--quantize` packs: the linears of every layer. Norms and the embedding, which is the head, stay.
LINEARS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


@dataclass(frozen=True, slots=True)
class LoadedBloom:
    """A model in evaluation mode with its tokenizer. `notes` are for the user, in the interface language."""

    model: BloomForCausalLM
    tokenizer: BloomTokenizer
    shape: BloomShape
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedBloom:
    """All that is known before the first weight is read; `model` has none yet."""

    model: BloomForCausalLM
    tokenizer: BloomTokenizer
    shape: BloomShape
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...]
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    placement: Placement


def load_bloom(options: LoadOptions, base: str, required: tuple[str, ...] = ()) -> LoadedBloom:
    """Load `options.model` and lay its adapters over it; `base` and `required` as in `prepare_bloom`.

    Raises what that raises, CheckpointError for damaged weights, MemoryShortageError.
    """
    prepared = prepare_bloom(options, base, required)
    model, placement = prepared.model, prepared.placement
    assign(model, prepared.checkpoint, prepared.headers, placement)
    if prepared.adapters:
        from medchat.inference.adapters.attach import attach_adapters  # brings peft: slow to import

        attach_adapters(model, prepared.adapters, placement.device, placement.dtype)
    return LoadedBloom(model.eval(), prepared.tokenizer, prepared.shape, prepared.adapters, prepared.notes)


def prepare_bloom(options: LoadOptions, base: str, required: tuple[str, ...] = ()) -> PreparedBloom:
    """Check all that can be checked without reading weights. `base` is the key of `known_adapters.BASES`;
    `required` are control tokens without which the family cannot chat.

    Raises CheckpointError (missing, damaged, not Bloom, not matching), MemoryShortageError where it can be
    known, or UsageError (impossible device, dtype or quantisation).
    """
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    bits = bits_of(options.quantize)
    shape = read_bloom_shape(options.model)
    checkpoint = open_checkpoint(options.model)
    headers = read_headers(checkpoint)
    check_bloom_sizes(shape, headers, options.model)
    tokenizer = read_bloom_vocabulary(options.model, shape, required)
    adapters = tuple(open_adapter(folder) for folder in options.adapters)
    notes = tuple(note for adapter in adapters for note in base_notes(adapter, base))
    with torch.device("meta"):
        model = BloomForCausalLM(library_config(shape, tokenizer)).eval()
    if bits:
        insert_quantized_linears(model, bits, LINEARS)
    placement = Placement(
        dtype,
        device,
        ignore=IGNORED,
        keep=("*.weight_scale",),
        tied={HEAD: EMBEDDING} if shape.tied else {},
        rename=without_model_prefix,
        conversions=conversions(model),
    )
    ensure_memory(loaded_weight_bytes(model, placement), device)
    if adapters:
        from medchat.inference.adapters.attach import check_fit  # brings peft: slow to import

        check_fit(model, adapters)
    require_match(model, checkpoint, headers, placement)
    return PreparedBloom(model, tokenizer, shape, adapters, notes, checkpoint, headers, placement)


def library_config(shape: BloomShape, tokenizer: BloomTokenizer) -> BloomConfig:
    """Return the library's configuration; no other key of config.json reaches it."""
    return BloomConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        layer_norm_epsilon=shape.layer_norm_epsilon,
        apply_residual_connection_post_layernorm=shape.residual_after_norm,
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["BloomForCausalLM"],
    )


# A loaded Bloom, Huozi or other model of this architecture as the chat engine sees it.


def load_bloom_chat(
    options: LoadOptions,
    *,
    backbone: str,
    base: str,
    required: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    cleanup: Callable[[], TextFilter] = Unchanged,
) -> CausalChatModel:
    """Load a checkpoint folder and its adapters for the plugin `backbone`.

    `base` is the key of `known_adapters.BASES`; `required` are control tokens without which the family
    cannot chat. Raises what `load_bloom` raises.
    """
    loaded = load_bloom(options, base, required)
    details = {
        "vocab_size": loaded.shape.vocab_size,
        "tokens": loaded.tokenizer.size,
        "adapters": tuple(str(adapter.folder) for adapter in loaded.adapters),
    }
    room = loaded.shape.context_length - positions_taken(loaded.adapters)
    return CausalChatModel(
        loaded.model,
        loaded.tokenizer,
        ModelFacts(backbone, options.model, room, details, (*loaded.notes, *notes)),
        stop_ids=loaded.shape.end_ids,
        token_count=loaded.tokenizer.size,
        cleanup=cleanup,
    )
