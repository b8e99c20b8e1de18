"""Loading of checkpoint folders of Bloom's architecture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from transformers import BloomConfig, BloomForCausalLM, PreTrainedModel

from medchat.checkpoints.adapter_folder import base_notes, open_adapter
from medchat.checkpoints.headers import TensorHeader
from medchat.inference.causal_loading import CausalLoading, CausalModel, Vocabulary
from medchat.inference.fused_decoder import DecoderParts
from medchat.plugin_kit import LoadOptions
from medchat_bloom.folder import (
    IGNORED,
    BloomShape,
    bloom_misfit,
    read_bloom_shape,
    without_model_prefix,
)
from medchat_bloom.fused import bloom_parts
from medchat_bloom.inspection import read_bloom_vocabulary
from medchat_bloom.tokenizer import BloomTokenizer
from medchat_bloom.weights import which_base


class BloomLoading(CausalLoading[BloomShape, BloomTokenizer]):
    """The loader of Bloom, whose files do not distinguish its two published bases."""

    name = "bloom"
    model_class = BloomForCausalLM
    ignored = IGNORED
    #: Control tokens without which the family cannot chat.
    required: ClassVar[tuple[str, ...]] = ()

    def read_shape(self, folder: Path) -> BloomShape:
        """Read config.json."""
        return read_bloom_shape(folder)

    def misfit(self, shape: BloomShape, headers: Mapping[str, TensorHeader]) -> str:
        """Compare layers, rows and width with the tensors."""
        return bloom_misfit(shape, headers)

    def rename(self, stored: str) -> str:
        """Return the model's name of a stored tensor."""
        return without_model_prefix(stored)

    def open_vocabulary(
        self, options: LoadOptions, shape: BloomShape, headers: Mapping[str, TensorHeader]
    ) -> Vocabulary[BloomTokenizer]:
        """Open the weights' vocabulary, then the adapters; `name` is also the published base."""
        tokenizer = read_bloom_vocabulary(options.model, shape, self.required)
        adapters = tuple(open_adapter(folder) for folder in options.adapters)
        notes = [note for adapter in adapters for note in base_notes(adapter, self.name, options.model)]
        return Vocabulary(
            tokenizer, shape.vocab_size, self.name, adapters, (*notes, *self.base_notes(options))
        )

    def base_notes(self, options: LoadOptions) -> tuple[str, ...]:
        """Return notes on the base: with an adapter it matters which of the two it is."""
        return (which_base(),) if options.adapters else ()

    def library_config(self, shape: BloomShape, vocabulary: Vocabulary[BloomTokenizer]) -> BloomConfig:
        """Return the configuration, with the vocabulary's own ids."""
        tokenizer = vocabulary.tokenizer
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

    def stop_ids(self, loaded: CausalModel[BloomShape, BloomTokenizer]) -> Collection[int]:
        """Return the end ids in config.json."""
        return loaded.shape.end_ids

    def token_count(self, loaded: CausalModel[BloomShape, BloomTokenizer]) -> int | None:
        """Return the vocabulary's size: the published embedding has 200 more rows."""
        return loaded.tokenizer.size

    def details(
        self, loaded: CausalModel[BloomShape, BloomTokenizer], options: LoadOptions
    ) -> dict[str, Any]:
        """Add the size of the vocabulary, after the rows."""
        found = super().details(loaded, options)
        return {"vocab_size": found["vocab_size"], "tokens": loaded.tokenizer.size, **found}

    def decoder_parts(self, model: PreTrainedModel) -> DecoderParts | None:
        """Say what it consists of, where nothing was added to it."""
        return bloom_parts(model)


BLOOM = BloomLoading()
