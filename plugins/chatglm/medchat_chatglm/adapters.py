"""What can be laid over a ChatGLM: a P-tuning prefix, or LoRA weights saved by peft.

Both are read with the same safe and strict toolkit as models; peft only builds the LoRA layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medchat.errors import CheckpointError
from medchat.language import say
from medchat.torchside.headers import TensorHeader, read_headers
from medchat.torchside.layout import (
    MODEL_FILES,
    Candidates,
    Checkpoint,
    names,
    open_checkpoint,
    read_json_object,
    require_folder,
)
from medchat.torchside.load import Placement, assign
from medchat_chatglm.inspection import PREFIX

_FLAG = "--adapter"
_LORA_CONFIG = "adapter_config.json"
_LORA_FILES: Candidates = (("adapter_model.safetensors", "safetensors"), ("adapter_model.bin", "bin"))
#: A prefix on its own, before the layout of the original P-tuning script (a model folder).
PREFIX_FILES: Candidates = (("prefix_encoder.safetensors", "safetensors"), ("prefix_encoder.bin", "bin"))
_LORA_KEYS = ("r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern")
#: Settings that make an adapter more than plain LoRA, with the value that does not.
_PLAIN_LORA: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "layer_replication": None,
    "fan_in_fan_out": False,
}
#: What peft puts before the model's own names in its files.
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter folder whose headers were read. `headers` are those of the adapter's tensors alone."""

    folder: Path
    kind: Literal["prefix", "lora"]
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]


def find_adapter(folder: Path) -> Adapter:
    """Open an adapter folder. Raises CheckpointError if it is missing, damaged or of no known kind."""
    require_folder(folder, _FLAG)
    if (folder / _LORA_CONFIG).is_file():
        checkpoint = open_checkpoint(folder, _LORA_FILES, _FLAG)
        return Adapter(folder, "lora", checkpoint, read_headers(checkpoint))
    return find_prefix(folder, (*PREFIX_FILES, *MODEL_FILES))


def find_prefix(folder: Path, candidates: Candidates = PREFIX_FILES) -> Adapter:
    """Open a folder that holds a P-tuning prefix. Raises CheckpointError where there is none."""
    checkpoint = open_checkpoint(folder, candidates, _FLAG)
    # Older P-tuning checkpoints repeat the whole model; only the prefix is the adapter.
    headers = {name: header for name, header in read_headers(checkpoint).items() if name.startswith(PREFIX)}
    if not headers:
        raise CheckpointError(
            say(
                f"这里没有适配器：既无 {_LORA_CONFIG}，也无 {PREFIX}* 张量",
                f"this is no adapter: neither {_LORA_CONFIG} nor tensors {PREFIX}*",
            ),
            say(
                f"请检查 {_FLAG} 的路径；完整模型请用 --model",
                f"check {_FLAG}; a whole model goes to --model",
            ),
            where=str(folder),
        )
    return Adapter(folder, "prefix", checkpoint, headers)


def prefix_shape(adapter: Adapter) -> tuple[int, bool]:
    """Return the prefix's length in tokens and whether it has a projection (specification section 12)."""
    embedding = adapter.headers.get(f"{PREFIX}embedding.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(
            say("P-tuning 检查点缺少 embedding.weight", "the P-tuning checkpoint lacks embedding.weight"),
            say("请重新下载这个适配器", "download the adapter again"),
            where=str(adapter.folder),
        )
    return embedding.shape[0], any(name.startswith(f"{PREFIX}trans.") for name in adapter.headers)


def attach(model: nn.Module, adapter: Adapter, device: torch.device) -> None:
    """Put the adapter's weights into `model`. A prefix needs the empty encoder that its shape asks for.

    Raises CheckpointError if the adapter belongs to another model or changes nothing.
    """
    if adapter.kind == "prefix":
        encoder = model.get_submodule(PREFIX.rstrip("."))
        placement = Placement(torch.float32, device, rename=lambda name: name.removeprefix(PREFIX))
        assign(encoder, adapter.checkpoint, adapter.headers, placement)
    else:
        _attach_lora(model, adapter, device)


def _attach_lora(model: nn.Module, adapter: Adapter, device: torch.device) -> None:
    from peft import LoraConfig, inject_adapter_in_model  # slow to import, rarely needed

    config = LoraConfig(**_lora_settings(adapter), bias="none", inference_mode=True)
    try:
        # Builds the layers on the meta device, so that `assign` can hold them to the file's names.
        inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
    except ValueError as error:
        raise _no_fit(adapter, str(error).splitlines()[0][:120]) from None
    assign(model, adapter.checkpoint, adapter.headers, Placement(torch.float32, device, rename=_lora_name))
    if not any(bool(value.any()) for name, value in model.named_parameters() if ".lora_B." in name):
        raise _no_fit(
            adapter, say("lora_B 全为零，加载后不起作用", "every lora_B is zero, so it changes nothing")
        )


def _lora_name(stored: str) -> str:
    """Return the injected layer's name of a tensor in a peft file: peft adds the adapter's name."""
    path, _, leaf = stored.removeprefix(_PEFT_PREFIX).rpartition(".")
    return f"{path}.default.{leaf}"


def _lora_settings(adapter: Adapter) -> dict[str, Any]:
    """Return the settings of a plain LoRA. Raises CheckpointError for whatever else peft can save."""
    stated = read_json_object(adapter.folder / _LORA_CONFIG)
    odd = [
        f"{key} = {stated[key]!r}"
        for key, plain in _PLAIN_LORA.items()
        if stated.get(key, plain) not in (plain, None, False, [], {})
    ]
    if odd or not isinstance(stated.get("r"), int) or not stated.get("target_modules"):
        shown = names(odd) or "r, target_modules"
        raise CheckpointError(
            say(f"不支持这种适配器：{shown}", f"this kind of adapter is not supported: {shown}"),
            say("支持普通的 LoRA 和 P-tuning v2 前缀", "plain LoRA and P-tuning v2 prefixes are"),
            where=str(adapter.folder / _LORA_CONFIG),
        )
    return {key: stated[key] for key in _LORA_KEYS if stated.get(key) is not None}


def _no_fit(adapter: Adapter, reason: str) -> CheckpointError:
    return CheckpointError(
        say(f"适配器与这个模型对不上（{reason}）", f"the adapter does not fit this model ({reason})"),
        say("请确认它是为这个模型训练的", "check that it was trained for this model"),
        where=str(adapter.folder),
    )
