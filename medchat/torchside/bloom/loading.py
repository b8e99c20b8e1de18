"""From a Bloom checkpoint folder in any published layout, and its adapters, to a model and its tokenizer.

What can be known without the weights (configuration, vocabulary, names and shapes, memory) is checked
before the first weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import BloomConfig, BloomForCausalLM

from medchat.api import LoadOptions
from medchat.torchside.adapter_kinds import Adapter, base_notes, open_adapter
from medchat.torchside.bloom.folder import (
    EMBEDDING,
    HEAD,
    IGNORED,
    BloomShape,
    model_name,
    read_shape,
    refuse_other_sizes,
)
from medchat.torchside.bloom.inspection import read_vocabulary
from medchat.torchside.bloom.tokenizer import BloomTokenizer
from medchat.torchside.device import ensure_memory, pick_device, pick_dtype
from medchat.torchside.headers import TensorHeader, read_headers
from medchat.torchside.layout import Checkpoint, open_checkpoint
from medchat.torchside.load import Placement, assign, require_match, weight_bytes
from medchat.torchside.quantised import bits_of, conversions, prepare

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
        from medchat.torchside.laying import lay_all  # brings peft: slow to import

        lay_all(model, prepared.adapters, placement.device, placement.dtype)
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
    shape = read_shape(options.model)
    checkpoint = open_checkpoint(options.model)
    headers = read_headers(checkpoint)
    refuse_other_sizes(shape, headers, options.model)
    tokenizer = read_vocabulary(options.model, shape, required)
    adapters = tuple(open_adapter(folder) for folder in options.adapters)
    notes = tuple(note for adapter in adapters for note in base_notes(adapter, base))
    with torch.device("meta"):
        model = BloomForCausalLM(library_config(shape, tokenizer)).eval()
    if bits:
        prepare(model, bits, LINEARS)
    placement = Placement(
        dtype,
        device,
        ignore=IGNORED,
        keep=("*.weight_scale",),
        tied={HEAD: EMBEDDING} if shape.tied else {},
        rename=model_name,
        conversions=conversions(model),
    )
    ensure_memory(weight_bytes(model, placement), device)
    if adapters:
        from medchat.torchside.laying import require_fit  # brings peft: slow to import

        require_fit(model, adapters)
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
