"""Fine-tuning of Bloom and other families of its architecture, for the shared recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from medchat.inference.write_checkpoint import write_json
from medchat.plugin_kit import LoadOptions, SFTOptions
from medchat.training.activation_memory import ModelDims
from medchat.training.causal_family import CausalFamily
from medchat.training.family import copy_files, stored_parameters
from medchat_bloom.folder import HEAD, read_bloom_shape
from medchat_bloom.loading import BLOOM
from medchat_bloom.prompts import BLOOM_TEMPLATES

_TOKENIZER_FILES = (
    "tokenizer.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "added_tokens.json",
)


class BloomFamily(CausalFamily):
    """Adapters and complete models are trained with BenTsao's template for Bloom, unless the base states its own."""

    name = "bloom"
    lora_targets = ("query_key_value",)
    bottleneck_targets = ("dense", "dense_4h_to_h")
    loading = BLOOM
    templates = BLOOM_TEMPLATES

    def shape(self, options: SFTOptions) -> ModelDims:
        """Return the dimensions from config.json and the headers."""
        found = read_bloom_shape(options.model)
        hidden = found.hidden_size
        return self.dims(
            options,
            found,
            linears={
                "query_key_value": (hidden, 3 * hidden),
                "dense": (hidden, hidden),
                "dense_h_to_4h": (hidden, 4 * hidden),
                "dense_4h_to_h": (4 * hidden, hidden),
            },
            inner=4 * hidden,
            vocabulary=found.vocab_size,
            block="alibi",
            parameters=stored_parameters(options.model, lambda name: found.tied and name == HEAD),
        )

    def write_small_files(self, options: LoadOptions, model: PreTrainedModel, folder: Path) -> dict[str, Any]:
        """Copy the vocabulary, and state its ids in the configuration."""
        copy_files(options.model, folder, _TOKENIZER_FILES)
        config = model.config
        ids = {
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        }
        write_json(folder / "generation_config.json", ids)
        return {
            "architectures": ["BloomForCausalLM"],
            "model_type": "bloom",
            **ids,
            "apply_residual_connection_post_layernorm": config.apply_residual_connection_post_layernorm,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "hidden_size": config.hidden_size,
            "initializer_range": config.initializer_range,
            "layer_norm_epsilon": config.layer_norm_epsilon,
            "n_head": config.n_head,
            "n_layer": config.n_layer,
            "pretraining_tp": 1,
            "tie_word_embeddings": config.tie_word_embeddings,
            "torch_dtype": str(model.dtype).removeprefix("torch."),
            "unk_token_id": 0,
            "use_cache": True,
            "vocab_size": config.vocab_size,
        }
