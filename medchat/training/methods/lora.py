"""LoRA with peft: low-rank matrices beside frozen linear layers, written in peft's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from medchat.api import SFTOptions
from medchat.checkpoints.adapter_folder import open_adapter
from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.checkpoints.lora_targets import ALL_LINEAR, idle_targets
from medchat.errors import UsageError
from medchat.inference.adapters import lora as adapters
from medchat.language import say
from medchat.training.family import Family
from medchat.training.methods.method import Metadata, Method, no_modules, write_adapter

#: The new adapter's name during training.
TRAINED = "trained"
_MARK = f".{TRAINED}.weight"
#: What peft puts before the model's own names in its files.
_PEFT_PREFIX = "base_model.model."

#: BenTsao's fine-tuning (docs/specs/training.md, "Methods and defaults"), which the other adapters share
#: except for their own settings.
BENTSAO = {
    "learning_rate": 3e-4,
    "num_epochs": 10.0,
    "batch_size": 128,
    "micro_batch_size": 8,
    "eval_steps": 32,
    "save_steps": 32,
    "save_total": 5,
}


class LoraMethod(Method):
    """Plain LoRA. Trained on top of others (`options.adapters`) it is one more, and chat needs them too."""

    name = "lora"
    defaults: ClassVar = BENTSAO

    def defaults_for(self, family: Family) -> Mapping[str, Any]:
        """Return the defaults with the linear layers that LoRA is attached to in this family."""
        return {**self.defaults, "lora_targets": family.lora_targets}

    def refuse(self, family: Family, options: SFTOptions) -> None:
        """Raise UsageError for invalid settings, and for adapters that LoRA cannot be trained on top of."""
        super().refuse(family, options)
        for flag, valid, meaning in (
            ("--lora-r", options.lora_r >= 1, ">= 1"),
            ("--lora-alpha", options.lora_alpha >= 1, ">= 1"),
            ("--lora-dropout", 0 <= options.lora_dropout < 1, "0 <= x < 1"),
        ):
            if not valid:
                value = getattr(options, flag[2:].replace("-", "_"))
                raise UsageError(
                    say(f"{flag} 的值 {value} 无效", f"{flag} {value} is not valid"),
                    say(f"应为 {meaning}", f"it must be {meaning}"),
                )
        refuse_other_kinds(options)

    def make_trainable(self, model: PreTrainedModel, family: Family, options: SFTOptions) -> None:
        """Attach an untrained LoRA to the targets; its second matrices are zero, so it changes nothing yet.

        Raises UsageError if one of the targets names no module.
        """
        before = adapters.attached(model)
        targets = _named(options.lora_targets or family.lora_targets, model)
        # peft takes a list of which a part names no layer; the loader, after hours of training, would not.
        idle = idle_targets({"target_modules": targets}, adapters.lora_linears(model))
        if idle or not targets:
            raise no_modules(family, idle, model)
        adapters.inject(model, LoraConfig(**self._settings(targets, options)), TRAINED)
        adapters.activate(model, (*before, TRAINED))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith(_MARK))

    def save(
        self, model: PreTrainedModel, family: Family, options: SFTOptions, metadata: Metadata, folder: Path
    ) -> None:
        """Write adapter_model.safetensors and adapter_config.json as peft has them, with the template's key."""
        targets = _named(options.lora_targets or family.lora_targets, model)
        stated = LoraConfig(**self._settings(targets, options), inference_mode=True).to_dict()
        # A set has no fixed order, and the same run must write the same bytes.
        stated |= {"target_modules": list(targets), "base_model_name_or_path": options.model.name}
        stated["fan_in_fan_out"] = any(layer.fan_in_fan_out for layer in adapters.lora_layers(model))
        write_adapter(self._tensors(model), _plain(stated), metadata, folder)

    def _settings(self, targets: tuple[str, ...], options: SFTOptions) -> dict[str, Any]:
        return {
            "r": options.lora_r,
            "lora_alpha": options.lora_alpha,
            "lora_dropout": options.lora_dropout,
            "target_modules": list(targets),
            "bias": "none",
            "task_type": "CAUSAL_LM",
        }

    def _tensors(self, model: PreTrainedModel) -> dict[str, Tensor]:
        return {
            f"{_PEFT_PREFIX}{name.removesuffix(_MARK)}.weight": parameter
            for name, parameter in model.named_parameters()
            if name.endswith(_MARK)
        }


def _named(targets: tuple[str, ...], model: nn.Module) -> tuple[str, ...]:
    """Return the targets, for `all-linear` in place of names those of all linear layers that it means in `model`.

    These are all but the head, and in a net that states none all whose weight no other module has.
    """
    if ALL_LINEAR not in targets:
        return targets
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    head = adapters.head_name(model)
    return tuple(
        name
        for name in adapters.lora_linears(model)
        if name != head and uses[id(model.get_submodule(name).weight)] == 1
    )


def refuse_other_kinds(options: SFTOptions) -> None:
    """Raise UsageError for adapters to start from that are not LoRA: their order could not be kept."""
    for folder in options.adapters:
        if not isinstance(open_adapter(folder), LoraAdapter):
            raise UsageError(
                say("只能在 LoRA 适配器之上继续训练", "training can continue on top of LoRA adapters only"),
                say("请去掉这个 --adapter", "leave this --adapter out"),
                where=str(folder),
            )


def _plain(stated: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as JSON types: names in place of enumerations, lists in place of sets."""
    return {
        key: str(getattr(value, "value", value)) if key in ("peft_type", "task_type") else value
        for key, value in stated.items()
        if not isinstance(value, set)
    }
