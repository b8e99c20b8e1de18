"""Fine-tuning of LLaMA and Chinese-Alpaca, for the shared recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.inference.load_weights import matches
from medchat.inference.write_checkpoint import write_json
from medchat.plugin_kit import LoadOptions, PromptTemplate, SFTOptions
from medchat.training.activation_memory import ModelDims
from medchat.training.causal_family import CausalFamily
from medchat.training.family import base_options, copy_files, stored_parameters
from medchat_llama.folder import IGNORED, read_llama_shape, stored_rows
from medchat_llama.loading import LLAMA
from medchat_llama.prompts import CHINESE_ALPACA, LLAMA_TEMPLATES
from medchat_llama.tokenizer import BEGIN, END, FILE_NAME, UNKNOWN


class LlamaFamily(CausalFamily):
    """Adapters and complete models are trained with BenTsao's medical template, unless the base has an adapter."""

    name = "llama"
    lora_targets = ("q_proj", "v_proj")
    bottleneck_targets = ("o_proj", "down_proj")

    loading = LLAMA
    templates = LLAMA_TEMPLATES

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the template of the base if it was trained with a medical one, else BenTsao's default."""
        known = self.templates.known_names(options)
        medical = known and known != (CHINESE_ALPACA,)
        return self.templates.chosen(options) if medical else self.templates.named(self.templates.adapted)

    def write_small_files(self, options: LoadOptions, model: PreTrainedModel, folder: Path) -> dict[str, Any]:
        """Write the vocabulary and the small files, with the correct ids 0, 1 and 2 even if the source was wrong."""
        own = [*reversed(options.adapters), options.model]
        source = next(place for place in own if (place / FILE_NAME).is_file())
        copy_files(source, folder, (FILE_NAME,))
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        named = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}
        write_json(folder / "generation_config.json", ids)
        write_json(folder / "special_tokens_map.json", named)
        tokenizer = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
        write_json(
            folder / "tokenizer_config.json",
            {**named, **tokenizer, "legacy": True, "model_max_length": model.config.max_position_embeddings},
        )
        return _config(model)

    def shape(self, options: SFTOptions) -> ModelDims:
        """Return the dimensions from config.json and the headers, or from an adapter with a vocabulary."""
        found = read_llama_shape(options.model)
        hidden, inner = found.hidden_size, found.inner_size
        narrow = hidden // found.heads * found.key_value_heads
        rows = stored_rows(read_headers(open_checkpoint(options.model)), found)
        grown = self.loading.tokenizer(base_options(options)).size if options.adapters else rows
        ends = (1 if found.tied else 2) * (grown - rows) * hidden
        return self.dims(
            options,
            found,
            linears={
                "q_proj": (hidden, hidden),
                "k_proj": (hidden, narrow),
                "v_proj": (hidden, narrow),
                "o_proj": (hidden, hidden),
                "gate_proj": (hidden, inner),
                "up_proj": (hidden, inner),
                "down_proj": (inner, hidden),
            },
            inner=inner,
            vocabulary=grown,
            block="gated",
            parameters=ends + stored_parameters(options.model, lambda name: matches(name, IGNORED)),
        )


def _config(model: PreTrainedModel) -> dict[str, Any]:
    """Return the keys of config.json that both the current library and older tools read."""
    config = model.config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
