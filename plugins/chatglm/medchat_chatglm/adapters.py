"""What can be attached to a ChatGLM: a P-tuning prefix, or LoRA weights saved by peft.

Both are read with the same safe and strict toolkit as models; LoRA is `medchat.inference.adapters.lora`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medchat.api import AdapterCard
from medchat.checkpoints.adapter_folder import (
    CHATGLM_PREFIX,
    BottleneckAdapter,
    KeyValueAdapter,
    kind_of,
    open_adapter,
)
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import MODEL_FILES, Candidates, open_checkpoint, require_folder
from medchat.checkpoints.lora_folder import CONFIG_FILE, FLAG, LoraAdapter, is_lora_folder
from medchat.checkpoints.weight_files import Checkpoint
from medchat.errors import CheckpointError
from medchat.inference.load_weights import Placement, assign
from medchat.language import say
from medchat_chatglm.inspection import PREFIX
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration

#: A prefix on its own, before the layout of the original P-tuning script (a model folder).
PREFIX_FILES: Candidates = (("prefix_encoder.safetensors", "safetensors"), ("prefix_encoder.bin", "bin"))
#: Ordinary ids in the prompt that a LoRA is tried out with; the two control tokens follow them.
_TRIAL_WORDS = 6


@dataclass(frozen=True, slots=True)
class PrefixAdapter:
    """A folder with a P-tuning prefix. `headers` are those of the prefix's tensors alone."""

    folder: Path
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]

    def shape(self) -> tuple[int, bool]:
        """Return the prefix's length in tokens and whether it has a projection.

        Layout: docs/specs/models.md, "P-tuning prefix".

        Raises CheckpointError where the file does not say.
        """
        embedding = self.headers.get(f"{PREFIX}embedding.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise CheckpointError(
                say("P-tuning 检查点缺少 embedding.weight", "the P-tuning checkpoint lacks embedding.weight"),
                say("请重新下载这个适配器", "download the adapter again"),
                where=str(self.folder),
            )
        return embedding.shape[0], any(name.startswith(f"{PREFIX}trans.") for name in self.headers)


Adapter = PrefixAdapter | LoraAdapter | BottleneckAdapter


def open_chatglm_adapter(folder: Path) -> Adapter:
    """Open an adapter folder. Raises CheckpointError if it is missing, damaged or of no known kind."""
    require_folder(folder, FLAG)
    if not is_lora_folder(folder):
        return find_prefix(folder, (*PREFIX_FILES, *MODEL_FILES))
    if kind_of(folder) == CHATGLM_PREFIX:
        return find_prefix(folder)
    adapter = open_adapter(folder)
    if isinstance(adapter, LoraAdapter) and not adapter.saved:
        return adapter
    if isinstance(adapter, BottleneckAdapter):
        return adapter
    found = "PREFIX_TUNING" if isinstance(adapter, KeyValueAdapter) else "modules_to_save"
    raise CheckpointError(
        say(f"不支持这种适配器：{found}", f"this kind of adapter is not supported: {found}"),
        say(
            "ChatGLM 支持普通的 LoRA、瓶颈适配器（Houlsby）和 P-tuning v2 前缀",
            "ChatGLM takes plain LoRA, bottlenecks (Houlsby) and P-tuning v2 prefixes",
        ),
        where=str(folder / CONFIG_FILE),
    )


def find_prefix(folder: Path, candidates: Candidates = PREFIX_FILES) -> PrefixAdapter:
    """Open a folder that holds a P-tuning prefix. Raises CheckpointError where there is none."""
    checkpoint = open_checkpoint(folder, candidates, FLAG)
    # Older P-tuning checkpoints repeat the whole model; only the prefix is the adapter.
    headers = {name: header for name, header in read_headers(checkpoint).items() if name.startswith(PREFIX)}
    if not headers:
        raise CheckpointError(
            say(
                f"这里没有适配器：既无 {CONFIG_FILE}，也无 {PREFIX}* 张量",
                f"this is no adapter: neither {CONFIG_FILE} nor tensors {PREFIX}*",
            ),
            say(
                f"请检查 {FLAG} 的路径；完整模型请用 --model",
                f"check {FLAG}; a whole model goes to --model",
            ),
            where=str(folder),
        )
    return PrefixAdapter(folder, checkpoint, headers)


def inspect_prefix(folder: Path) -> AdapterCard:
    """Say what is wrong with a folder that calls itself a P-tuning prefix, if anything is."""
    try:
        find_prefix(folder).shape()
    except CheckpointError as error:
        return AdapterCard(fault=error.what)
    return AdapterCard()


def check_chatglm_fit(model: nn.Module, adapters: list[Adapter]) -> None:
    """Hold the adapters against `model` before its weights are read. Raises CheckpointError."""
    others = _others(adapters)
    if others:
        from medchat.inference.adapters import attach  # brings peft: slow to import, rarely needed

        attach.check_fit(model, others)


def attach_chatglm_adapters(
    model: ChatGLMForConditionalGeneration, adapters: list[Adapter], device: torch.device, dtype: torch.dtype
) -> None:
    """Put the adapters' weights into `model`. A prefix needs the empty encoder that its shape asks for.

    Raises CheckpointError if one belongs to another model, or a LoRA changes no logit.
    """
    for adapter in adapters:
        if isinstance(adapter, PrefixAdapter):
            encoder = model.get_submodule(PREFIX.rstrip("."))
            placement = Placement(torch.float32, device, rename=lambda name: name.removeprefix(PREFIX))
            assign(encoder, adapter.checkpoint, adapter.headers, placement)
    others = _others(adapters)
    if others:
        from medchat.inference.adapters import attach

        attach.attach_adapters(model, others, device, dtype, trial_prompt(model))


def trial_prompt(model: ChatGLMForConditionalGeneration) -> tuple[int, ...]:
    """Return a prompt of a few ids, for trying out an adapter: with the control tokens that it needs."""
    ids = model.config.special_ids
    return (*(ids.mask * number // _TRIAL_WORDS for number in range(_TRIAL_WORDS)), ids.gmask, ids.sop)


def _others(adapters: list[Adapter]) -> list[LoraAdapter | BottleneckAdapter]:
    return [adapter for adapter in adapters if not isinstance(adapter, PrefixAdapter)]
