"""Houlsby's adapters: two bottlenecks per layer are trained, the model is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from medchat.api import SFTOptions
from medchat.errors import UsageError
from medchat.inference.adapters import bottleneck
from medchat.language import say
from medchat.training.family import Family
from medchat.training.methods.lora import BENTSAO, refuse_other_kinds
from medchat.training.methods.method import Metadata, Method, no_modules, write_adapter


class BottleneckMethod(Method):
    """The defaults are BenTsao's for LoRA, which suit its data; the size is that of Houlsby's paper."""

    name = "adapter"
    defaults: ClassVar = BENTSAO

    def refuse(self, family: Family, options: SFTOptions) -> None:
        """Raise UsageError for an invalid size, and for adapters that it cannot be trained on."""
        super().refuse(family, options)
        if options.adapter_size < 1:
            raise UsageError(
                say(
                    f"--adapter-size 的值 {options.adapter_size} 无效",
                    f"--adapter-size {options.adapter_size} is not valid",
                ),
                say("应不小于 1", "it must be >= 1"),
            )
        refuse_other_kinds(options)

    def make_trainable(self, model: PreTrainedModel, family: Family, options: SFTOptions) -> None:
        """Insert the bottlenecks; their second matrices are zero, so they change nothing yet.

        Raises UsageError if the targets name no module.
        """
        if not bottleneck.insert_bottlenecks(model, family.bottleneck_targets, options.adapter_size):
            raise no_modules(family, family.bottleneck_targets, model)

    def save(
        self, model: PreTrainedModel, family: Family, options: SFTOptions, metadata: Metadata, folder: Path
    ) -> None:
        """Write the two files that `bottleneck` describes."""
        stated = {
            **bottleneck.stated(options.adapter_size, family.bottleneck_targets),
            "base_model_name_or_path": options.model.name,
        }
        write_adapter(dict(bottleneck.tensors_of(model)), stated, metadata, folder)
