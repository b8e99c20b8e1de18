"""The configuration of ChatGLM-6B v1 as the library has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from medchat_chatglm.config_file import ChatGLMValues
from medchat_chatglm.config_reading import impossible_at, stated_values


@strict
class ChatGLMConfig(ChatGLMValues, PreTrainedConfig):  # type: ignore[misc]
    """Configuration of the first ChatGLM-6B: see `ChatGLMValues`."""

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (the library's own attribute)
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }
    base_model_fsdp_plan = {  # noqa: RUF012
        "word_embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
        "final_layernorm": "keep_full_weight",
    }

    def __post_init__(self, **kwargs: Any) -> None:
        # References to the original remote code: never used here, and wrong in any folder that we save.
        kwargs.pop("auto_map", None)
        self.fill_special_ids()
        PreTrainedConfig.__post_init__(self, **kwargs)
        self.refuse_what_never_was_released()


def read_configuration(folder: Path, extra: Mapping[str, str] | None = None) -> ChatGLMConfig:
    """Read config.json of a ChatGLM v1. Raises as `read_values`."""
    values, known = stated_values(folder, extra)
    with impossible_at(values):
        try:
            return ChatGLMConfig(**known)
        except StrictDataclassError as error:
            raise ValueError(str(error)) from None
