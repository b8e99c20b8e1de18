"""P-tuning v2 (prefix tuning): keys and values before the text are trained, the model is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from medchat.api import SFTOptions
from medchat.errors import UsageError
from medchat.inference.adapters import prefix_tuning
from medchat.language import say
from medchat.training.family import Family
from medchat.training.methods.lora import BENTSAO, refuse_other_kinds
from medchat.training.methods.method import Metadata, Method, write_adapter

#: The official P-tuning's length (the default of the field) and learning rate (docs/specs/training.md,
#: "Methods and defaults").
P_TUNING = {**BENTSAO, "learning_rate": 2e-2, "batch_size": 16}


class PrefixMethod(Method):
    """peft's prefix tuning, for families without a prefix of their own."""

    name = "ptuning"
    defaults: ClassVar = P_TUNING

    def refuse(self, family: Family, options: SFTOptions) -> None:
        """Raise UsageError for an invalid length, gradient checkpointing, and adapters to start from."""
        super().refuse(family, options)
        refuse_length(options)
        if options.gradient_checkpointing:
            raise UsageError(
                say(
                    "ptuning（前缀）不能与 --gradient-checkpointing 同用：前缀在缓存里，重算时会丢失",
                    "ptuning cannot be used with --gradient-checkpointing: the prefix is in the cache, which is "
                    "lost when layers are recomputed",
                ),
                say(
                    "请去掉 --gradient-checkpointing，或改用 --method lora",
                    "leave --gradient-checkpointing out, or use --method lora",
                ),
            )
        refuse_other_kinds(options)

    def positions_taken(self, options: SFTOptions) -> int:
        """Return the prefix's length: the text's positions start there."""
        return options.pre_seq_len

    def make_trainable(self, model: PreTrainedModel, family: Family, options: SFTOptions) -> None:
        """Put a random prefix before the text. Unlike other methods it has an effect before training."""
        prefix_tuning.insert_prefix(model, options.pre_seq_len, projection=options.prefix_projection)

    def save(
        self, model: PreTrainedModel, family: Family, options: SFTOptions, metadata: Metadata, folder: Path
    ) -> None:
        """Write adapter_model.safetensors and adapter_config.json as peft has them, with the template's key."""
        settings = prefix_tuning.prefix_settings(model, options.pre_seq_len)
        stated = {
            **{key: value for key, value in settings.to_dict().items() if not isinstance(value, set)},
            "peft_type": str(settings.peft_type.value),
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            "base_model_name_or_path": options.model.name,
        }
        write_adapter(prefix_tuning.stored_tensors(model), stated, metadata, folder)


def refuse_length(options: SFTOptions) -> None:
    """Raise UsageError for an empty prefix."""
    if options.pre_seq_len < 1:
        raise UsageError(
            say(
                f"--pre-seq-len 的值 {options.pre_seq_len} 无效",
                f"--pre-seq-len {options.pre_seq_len} is not valid",
            ),
            say("应不小于 1", "it must be >= 1"),
        )
