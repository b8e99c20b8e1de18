"""Full fine-tuning: every weight is trained, and the result is a checkpoint by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from transformers import PreTrainedModel

from medchat.api import LoadOptions, PromptTemplate, SFTOptions
from medchat.torchside.sft.family import Family, base_options, write_json
from medchat.torchside.sft.methods.method import Method, dtype_name, precision, told_of
from medchat.torchside.sft.weights_file import save_weights


class FullMethod(Method):
    """Adapters that training starts from are merged first: what comes out needs none of them."""

    name = "full"
    kind: ClassVar[Literal["model", "adapter"]] = "model"
    # specs/sft.md: Med-ChatGLM's, which `SFTOptions` has but for this one.
    defaults: ClassVar = {"adam_epsilon": 1e-3}

    def make_trainable(self, model: PreTrainedModel, family: Family, options: SFTOptions) -> None:
        """Let every parameter require gradients."""
        if options.adapters:
            from medchat.torchside.adapters import attached, merge

            for name in attached(model):
                merge(model, name)
        model.requires_grad_(True)

    def save(
        self,
        model: PreTrainedModel,
        family: Family,
        options: SFTOptions,
        template: PromptTemplate,
        folder: Path,
    ) -> None:
        """Write model.safetensors, the tokenizer's and other small files, then config.json."""
        save_weights(model, folder)
        config = family.write_small_files(base_options(options), model, folder)
        config |= told_of(model, family, template, folder)
        write_json(folder / "config.json", config)

    def result_options(self, options: SFTOptions, folder: Path) -> LoadOptions:
        """Return how chat is asked for the result: as a model, without adapters."""
        asked = base_options(options, dtype=self.dtype(options))
        return replace(asked, model=folder, adapters=(), extra={})

    def dtype(self, options: SFTOptions) -> str:
        """Return float32, or bfloat16 where the options ask for weights that coarse."""
        return dtype_name(precision(options).weights)
