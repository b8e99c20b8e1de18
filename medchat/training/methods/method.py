"""The interface of a fine-tuning method, and what all methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from medchat.api import LoadOptions, PromptTemplate, SFTOptions
from medchat.checkpoints.adapter_folder import WEIGHTS_NAME
from medchat.checkpoints.layout import readable_config
from medchat.checkpoints.lora_folder import CONFIG_FILE
from medchat.checkpoints.packed_weights import QUANTIZATION_KEY
from medchat.checkpoints.stated_template import write_template
from medchat.errors import MedchatError, UsageError
from medchat.inference.adapters.linears import linear_sizes
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.device import pick_device
from medchat.inference.write_checkpoint import save_and_compare, write_json
from medchat.language import say
from medchat.training.family import Family, base_options, refuse_quantised
from medchat.training.optimizers import Precision, precision_of

#: Metadata in a result's configuration file that chat reads, by key.
Metadata = Mapping[str, str]


class Method(ABC):
    """One way to train a model. The recipe calls the methods in this order."""

    #: The name for `--method`, and the kind of the result: a complete model or an adapter.
    name: ClassVar[str]
    kind: ClassVar[Literal["model", "adapter"]] = "adapter"
    #: Fields of `SFTOptions` whose defaults differ.
    defaults: ClassVar[Mapping[str, Any]] = {}

    def defaults_for(self, family: Family) -> Mapping[str, Any]:
        """Return `defaults` with the family's values of this method's settings."""
        return self.defaults

    def refuse(self, family: Family, options: SFTOptions) -> None:
        """Raise UsageError for options that this method does not support. Reads small files only."""
        refuse_quantised(options, (readable_config(options.model) or {}).get(QUANTIZATION_KEY))
        family.refuse(options)

    def load(self, family: Family, options: SFTOptions) -> TokenChatModel:
        """Load what training starts from, with chat's loader."""
        return family.load(base_options(options, dtype=self.dtype(options)))

    @abstractmethod
    def make_trainable(self, model: nn.Module, family: Family, options: SFTOptions) -> None:
        """Add the trainable parameters; nothing else requires gradients afterwards."""

    @abstractmethod
    def save(
        self, model: nn.Module, family: Family, options: SFTOptions, metadata: Metadata, folder: Path
    ) -> None:
        """Write the result: weights first, then the small files, and last the one that makes it loadable.

        `metadata` (`metadata_of`) goes into that last file.
        """

    def load_result(self, family: Family, options: SFTOptions, folder: Path) -> TokenChatModel:
        """Load the result as chat would, from the folder alone."""
        return family.load(self.result_options(options, folder))

    def result_options(self, options: SFTOptions, folder: Path) -> LoadOptions:
        """Return the options to load the result in chat, which must find position rule, template and adapters in it."""
        base = base_options(options, dtype=self.dtype(options))
        return replace(base, adapters=(*options.adapters, folder), extra={})

    def positions_taken(self, options: SFTOptions) -> int:
        """Return how many positions of the context the trained part takes."""
        return 0

    def parameters(self, model: nn.Module) -> int:
        """Return how many parameters the model has; packed ones are counted individually."""
        return sum(parameter.numel() for parameter in model.parameters())

    def dtype(self, options: SFTOptions) -> str:
        """Return the dtype to load the base in: while frozen, the device's compute dtype."""
        return dtype_name(precision(options).base)


def precision(options: SFTOptions) -> Precision:
    """Return the dtypes of a run."""
    return precision_of(options, pick_device(options.device))


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype in `--dtype` and config.json."""
    return str(dtype).removeprefix("torch.")


def write_adapter(
    tensors: Mapping[str, Tensor],
    stated: Mapping[str, Any],
    metadata: Metadata,
    folder: Path,
) -> None:
    """Write an adapter's folder and compare its weights with the trained ones, tensor by tensor.

    `stated` is its type and shape, `metadata` what chat must find again (`metadata_of`). Raises MedchatError
    if a weight is not finite or the file differs from the trained tensors.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = folder / WEIGHTS_NAME
    check_finite_result(kept)
    if not kept or not save_and_compare(kept, path):
        raise MedchatError(
            say("写到磁盘上的权重与训练结果不一致", "the weights on the disk differ from the trained ones"),
            say("请检查磁盘后重新训练", "check the disk and train again"),
            where=str(path),
        )
    write_json(folder / CONFIG_FILE, {**stated, **metadata})


def metadata_of(model: nn.Module, family: Family, template: PromptTemplate, folder: Path) -> dict[str, str]:
    """Return the metadata that chat reads from a result, and write the template's file into its folder."""
    return {**family.trained_facts(model), **write_template(template, folder, family.own_templates)}


def check_finite_result(tensors: Mapping[str, Tensor]) -> None:
    """Raise MedchatError if a trained weight is NaN or infinite. Any shape and dtype."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise MedchatError(
                say(f"训练后的权重 {name} 含有无效数值", f"the trained weight {name} is not finite"),
                say("请调低 --learning-rate 再试", "try a lower --learning-rate"),
            )


def no_modules(family: Family, targets: Sequence[str], model: nn.Module) -> UsageError:
    """Return the error for targets that match no module of the model, or for a model that has none to match."""
    linears = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if linear_sizes(part)})
    if not targets or not linears:
        return UsageError(
            say(
                "模型里没有 LoRA 可以附加的线性层",
                "the model has no linear layer that LoRA can be attached to",
            ),
            say("请改用 --method full", "use --method full"),
        )
    return UsageError(
        say(f"模型里没有 {' '.join(targets)}", f"the model has no {' '.join(targets)}"),
        say(
            f"--lora-targets 可用：{' '.join(linears)}（默认 {' '.join(family.lora_targets)}）",
            f"--lora-targets takes {' '.join(linears)} (by default {' '.join(family.lora_targets)})",
        ),
    )
