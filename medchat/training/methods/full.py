"""Full fine-tuning: every weight is trained, and the result is a complete checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from medchat.api import LoadOptions, SFTOptions
from medchat.checkpoints.weight_files import names
from medchat.errors import MedchatError, UsageError
from medchat.inference.write_checkpoint import save_and_compare, write_json
from medchat.language import say
from medchat.training.family import Family, base_options
from medchat.training.methods.method import Metadata, Method, dtype_name, precision

# Writes a trained model's weights, and reads them back before the run counts as finished.

WEIGHTS_NAME = "model.safetensors"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's tensors by name, tied ones once under their first name.

    Shapes and dtypes are the model's.
    """
    seen: set[tuple[int, int, torch.Size]] = set()
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
        if place not in seen:
            seen.add(place)
            weights[name] = tensor
    return weights


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write `model.safetensors` and compare it with the model, tensor by tensor.

    Raises MedchatError if a weight is not finite or the file differs from it.
    """
    weights = weights_of(model)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise MedchatError(
                say(f"训练后的权重 {name} 含有无效数值", f"the trained weight {name} is not finite"),
                say("请调低 --learning-rate 再试", "try a lower --learning-rate"),
            )
    path = folder / WEIGHTS_NAME
    if not save_and_compare(weights, path):
        raise MedchatError(
            say("写到磁盘上的权重与训练结果不一致", "the weights on the disk differ from the trained ones"),
            say("请检查磁盘后重新训练", "check the disk and train again"),
            where=str(path),
        )


def shared_with_others(layers: Sequence[str]) -> UsageError:
    """Return the error for adapters over weights that other layers have too: a sum would change those as well."""
    return UsageError(
        say(
            f"{names(layers)} 的权重与别的层共用，不能并入适配器",
            f"{names(layers)} shares its weight with another layer, so that no adapter can be merged into it",
        ),
        say(
            "请用 --adapter 加载这个适配器，或用 --method lora 继续训练",
            "load the adapter with --adapter, or train on with --method lora",
        ),
    )


class FullMethod(Method):
    """Adapters that training starts from are merged first, so that the result does not need them."""

    name = "full"
    kind: ClassVar[Literal["model", "adapter"]] = "model"
    # Med-ChatGLM's defaults are those of `SFTOptions`, except this one (docs/specs/training.md, "Methods and
    # defaults").
    defaults: ClassVar = {"adam_epsilon": 1e-3}

    def make_trainable(self, model: nn.Module, family: Family, options: SFTOptions) -> None:
        """Let every parameter require gradients. Raises UsageError for adapters over a weight that layers share."""
        if options.adapters:
            from medchat.inference.adapters.lora import attached
            from medchat.inference.adapters.lora_merging import merge, over_shared_weights

            if shared := over_shared_weights(model):
                raise shared_with_others(shared)
            for name in attached(model):
                merge(model, name)
        model.requires_grad_(True)

    def save(
        self, model: nn.Module, family: Family, options: SFTOptions, metadata: Metadata, folder: Path
    ) -> None:
        """Write model.safetensors, the tokenizer and other small files, then config.json."""
        save_weights(model, folder)
        config = family.write_small_files(base_options(options), model, folder)
        write_json(folder / "config.json", {**config, **metadata})

    def result_options(self, options: SFTOptions, folder: Path) -> LoadOptions:
        """Return the options to load the result in chat: as a model, without adapters."""
        asked = base_options(options, dtype=self.dtype(options))
        return replace(asked, model=folder, adapters=(), extra={})

    def dtype(self, options: SFTOptions) -> str:
        """Return float32, or bfloat16 if the options ask for bfloat16 weights."""
        return dtype_name(precision(options).weights)
