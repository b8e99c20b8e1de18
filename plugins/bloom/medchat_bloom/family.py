"""How models of Bloom's architecture are fine-tuned: what the shared recipes must know of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from medchat.api import LoadOptions, SFTOptions
from medchat.inference.chat_model import ChatTokenizer
from medchat.inference.write_checkpoint import write_json
from medchat.training.activation_memory import ModelDims, model_dims
from medchat.training.family import Family, copy_files, stored_parameters
from medchat_bloom.folder import HEAD, read_bloom_shape
from medchat_bloom.loading import prepare_bloom
from medchat_bloom.tokenizer import BloomTokenizer

_TOKENIZER_FILES = (
    "tokenizer.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "added_tokens.json",
)


class BloomFamily(Family):
    """A plugin adds its name, its forms, and how it loads."""

    lora_targets = ("query_key_value",)
    bottleneck_targets = ("dense", "dense_4h_to_h")
    #: The key of `known_adapters.BASES`, and control tokens without which the family cannot chat.
    base = "bloom"
    required: tuple[str, ...] = ()

    def check(self, options: LoadOptions) -> None:
        """Check all that shows without reading weights."""
        prepare_bloom(options, self.base, self.required)

    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        """Return the vocabulary beside the weights."""
        return BloomTokenizer.from_folder(options.model)

    def shape(self, options: SFTOptions) -> ModelDims:
        """Return the measures that config.json and the headers state."""
        found = read_bloom_shape(options.model)
        hidden = found.hidden_size
        linears = {
            "query_key_value": (hidden, 3 * hidden),
            "dense": (hidden, hidden),
            "dense_h_to_4h": (hidden, 4 * hidden),
            "dense_4h_to_h": (4 * hidden, hidden),
        }
        return model_dims(
            options,
            layers=found.layers,
            hidden=hidden,
            inner=4 * hidden,
            heads=found.heads,
            vocabulary=found.vocab_size,
            block="alibi",
            tied=found.tied,
            targets=[linears[name] for name in options.lora_targets or self.lora_targets if name in linears],
            parameters=stored_parameters(options.model, lambda name: found.tied and name == HEAD),
        )

    def write_small_files(self, options: LoadOptions, model: PreTrainedModel, folder: Path) -> dict[str, Any]:
        """Copy the vocabulary, and state the ids that it has."""
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
