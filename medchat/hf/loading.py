"""How the folder of a causal model that transformers knows is loaded: by its config.json, and none of its code."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from medchat.api import LoadOptions
from medchat.checkpoints.adapter_folder import base_notes, open_adapter
from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.packed_weights import QUANTIZATION_KEY
from medchat.errors import CheckpointError
from medchat.hf.folder import FolderShape, layers_misfit, read_folder_shape
from medchat.hf.tokenizer import HFTokenizer
from medchat.hf.vocabulary import require_rows
from medchat.inference.causal_loading import CausalLoading, CausalModel, Vocabulary
from medchat.language import say

#: Keys of config.json that choose code or how it runs, not what the model is.
_NOT_THE_MODEL = frozenset(
    {
        "auto_map",
        QUANTIZATION_KEY,
        "quantization_config",
        "attn_implementation",
        "experts_implementation",
        "dtype",
        "torch_dtype",
    }
)


class TransformersLoading(CausalLoading[FolderShape, HFTokenizer]):
    """Folders of the architectures `model_types`, by transformers' names for them (`qwen2`)."""

    def __init__(self, name: str, model_types: Collection[str], tokenizer: type[HFTokenizer]) -> None:
        self.name = name
        self._model_types = frozenset(model_types)
        self._tokenizer = tokenizer

    def read_shape(self, folder: Path) -> FolderShape:
        """Read config.json."""
        return read_folder_shape(folder, self._model_types)

    def misfit(self, shape: FolderShape, headers: Mapping[str, TensorHeader]) -> str:
        """Hold the number of layers against the tensors: all else shows tensor by tensor."""
        return layers_misfit(shape, headers)

    def open_vocabulary(
        self, options: LoadOptions, shape: FolderShape, headers: Mapping[str, TensorHeader]
    ) -> Vocabulary[HFTokenizer]:
        """Open the vocabulary beside the weights, then the adapters."""
        tokenizer = self._tokenizer.from_folder(options.model)
        require_rows(tokenizer.size, shape.vocab_size, options.model)
        adapters = tuple(open_adapter(folder) for folder in options.adapters)
        notes = tuple(note for adapter in adapters for note in base_notes(adapter, self.name, options.model))
        return Vocabulary(tokenizer, shape.vocab_size, self.name, adapters, notes)

    def library_config(self, shape: FolderShape, vocabulary: Vocabulary[HFTokenizer]) -> PretrainedConfig:
        """Return the configuration: what config.json states of the model, and nothing that chooses code.

        Raises CheckpointError: unknown to this version of transformers, or a value that it does not take.
        """
        if shape.model_type not in CONFIG_MAPPING:
            raise _unknown(shape.model_type)
        stated = {
            key: value
            for key, value in shape.stated.items()
            if key not in _NOT_THE_MODEL and not key.startswith("_")
        }
        try:
            return CONFIG_MAPPING[shape.model_type].from_dict(stated)
        except Exception as error:  # whatever a value of the wrong kind makes of the library's own checks
            raise _impossible(error) from None

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """Return the library's model of this architecture, never code that a folder brings.

        Raises CheckpointError for a configuration that no such model has.
        """
        try:
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except Exception as error:
            raise _impossible(error) from None

    def never_read(self, model: PreTrainedModel, headers: Mapping[str, TensorHeader]) -> tuple[str, ...]:
        """Return the names of tables that older versions of the library stored."""
        named = self.naming(model, headers)
        computed = {name for name, _ in model.named_buffers()} - set(model.state_dict())
        patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"]
        patterns.append(r"\.attn\.(masked_)?bias$")  # the causal mask of GPT-2's first releases
        known = set(model.state_dict())
        return tuple(
            escape(name)
            for name in headers
            if named(name) in computed
            or (named(name) not in known and any(re.search(pattern, name) for pattern in patterns))
        )

    def naming(self, model: PreTrainedModel, headers: Mapping[str, TensorHeader]) -> Callable[[str], str]:
        """Return what adds the prefix that files saved from the inner model lack."""
        prefix = f"{model.base_model_prefix}."
        if prefix == "." or any(name.startswith(prefix) for name in headers):
            return self.rename
        known = set(model.state_dict())
        return lambda stored: stored if stored in known else prefix + stored

    def token_count(self, loaded: CausalModel[FolderShape, HFTokenizer]) -> int | None:
        """Return the vocabulary's size: many an embedding is padded."""
        return loaded.tokenizer.size

    def details(self, loaded: CausalModel[FolderShape, HFTokenizer], options: LoadOptions) -> dict[str, Any]:
        """Add the architecture, the size of the vocabulary behind the rows."""
        return {
            "architecture": loaded.shape.model_type,
            "tokens": loaded.tokenizer.size,
            **super().details(loaded, options),
        }


def _unknown(model_type: str) -> CheckpointError:
    return CheckpointError(
        say(
            f"这个版本的 transformers 不认识 {model_type}",
            f"this version of transformers does not know {model_type}",
        ),
        say("请升级 transformers：pip install -U transformers", "pip install -U transformers"),
    )


def _impossible(error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return CheckpointError(
        say(f"config.json 的内容无效（{reason}）", f"config.json holds an impossible value ({reason})"),
        say("请从权重的来源重新下载 config.json", "fetch config.json again from where the weights came from"),
    )
