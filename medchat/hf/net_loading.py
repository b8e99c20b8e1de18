"""How the net of a `NetBackbone` is made, loaded and fine-tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from medchat.api import LoadOptions, PromptTemplate, SFTOptions
from medchat.checkpoints.adapter_folder import base_notes, files_passed_over, no_fit, open_adapter
from medchat.checkpoints.config_json import ConfigValues
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.checkpoints.stated_template import TemplateChoice
from medchat.checkpoints.weight_files import Checkpoint
from medchat.hf.net_memory import net_dims
from medchat.inference.causal_loading import CausalTokenizer
from medchat.inference.decode import ChatTokenizer
from medchat.inference.device import ensure_memory, pick_device, pick_dtype
from medchat.inference.load_weights import Placement, assign, loaded_weight_bytes, require_match
from medchat.inference.net_chat_model import NetChatModel
from medchat.inference.token_answers import ModelFacts
from medchat.inference.write_checkpoint import begin_folder, write_json, write_weights
from medchat.language import say
from medchat.training.activation_memory import ModelDims
from medchat.training.family import Family, copy_files
from medchat.training.methods.full import weights_of

#: Tokens of the prompt that an adapter is tried with.
_TRIAL_TOKENS = 8


@dataclass(frozen=True, slots=True)
class PreparedNet:
    """The files of a net, which fit each other, and how its weights are to be read."""

    stated: ConfigValues
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    placement: Placement
    tokenizer: CausalTokenizer
    context_length: int
    adapters: tuple[LoraAdapter, ...]


@dataclass(frozen=True)
class NetLoading:
    """What a `NetBackbone` says of its folders, by the names of its own methods and attributes."""

    name: str
    net: Callable[[Mapping[str, Any]], nn.Module]
    tokenizer: Callable[[Path], CausalTokenizer]
    small_files: tuple[str, ...]
    templates: TemplateChoice

    def prepare(self, options: LoadOptions) -> PreparedNet:
        """Check all that can be checked without reading weights.

        Raises CheckpointError if files are missing or do not fit each other, MemoryShortageError, UsageError.
        """
        device = pick_device(options.device)
        dtype = pick_dtype(options.dtype, device)
        stated = ConfigValues(read_config(options.model), options.model / "config.json")
        context_length = stated.size("max_position_embeddings")
        tokenizer = self.tokenizer(options.model)
        if (rows := stated.size("vocab_size")) < tokenizer.size:
            raise stated.impossible(f"vocab_size {rows} < {tokenizer.size}")
        checkpoint = open_checkpoint(options.model)
        headers = read_headers(checkpoint)
        with torch.device("meta"):  # what config.json describes may be huge
            net = self._built(stated)
        placement = Placement(dtype, device, tied=_tied(net), watch=options.watch)
        ensure_memory(loaded_weight_bytes(net, placement), device)
        require_match(net, checkpoint, headers, placement)
        adapters = tuple(_open_lora(folder) for folder in options.adapters)
        if adapters:
            from medchat.inference.adapters.lora import check_lora_fit  # brings peft: slow to import

            check_lora_fit(net, adapters)
        return PreparedNet(stated, checkpoint, headers, placement, tokenizer, context_length, adapters)

    def chat(self, options: LoadOptions) -> NetChatModel:
        """Return the net with its weights, ready to chat. Raises what `prepare` raises, CheckpointError."""
        prepared = self.prepare(options)
        # Made once more with values: those of buffers that are no weights stay.
        net = self._built(prepared.stated)
        _drop_values(net)
        assign(net, prepared.checkpoint, prepared.headers, prepared.placement)
        # Buffers that are no weights go along, and recurrent layers take up their new weights.
        device, dtype = prepared.placement.device, prepared.placement.dtype
        net.to(device, dtype)
        if prepared.adapters:
            from medchat.inference.adapters.lora import attach_loras

            attach_loras(net.eval(), prepared.adapters, device, dtype, _trial(prepared))
        facts = ModelFacts(
            self.name,
            options.model,
            prepared.context_length,
            details={"adapters": tuple(str(folder) for folder in options.adapters)},
            notes=(
                *(
                    note
                    for adapter in prepared.adapters
                    for note in base_notes(adapter, self.name, options.model)
                ),
                *files_passed_over(prepared.checkpoint, prepared.adapters),
            ),
        )
        return NetChatModel(net, prepared.tokenizer, facts, token_count=prepared.tokenizer.size)

    def write_random(self, path: Path, config: Mapping[str, int], seed: int) -> None:
        """Write config.json and the weights that the net begins with. Raises UsageError."""
        begin_folder(path)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            net = self.net(config)
        write_weights(path, weights_of(net), "safetensors")
        write_json(path / "config.json", {**config, "model_type": self.name})

    def dims(self, family: Family, options: SFTOptions) -> ModelDims | None:
        """Return what an estimate of fine-tuning must know, None if it cannot be found out. Raises UsageError."""
        stated = ConfigValues(read_config(options.model), options.model / "config.json")
        sizes = stated.size("vocab_size"), stated.size("max_position_embeddings")
        return net_dims(family, options, lambda: self._built(stated), *sizes)

    def _built(self, stated: ConfigValues) -> nn.Module:
        try:
            return self.net(stated.stated)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise stated.impossible(f"{type(error).__name__}: {error}") from error


class NetFamily(Family):
    """What a `NetBackbone` says, as the recipes ask for it."""

    #: They take the layers of transformers' models.
    without: ClassVar[frozenset[str]] = frozenset({"qlora", "adapter", "ptuning"})

    def __init__(self, loading: NetLoading, lora_targets: tuple[str, ...]) -> None:
        self.name, self.lora_targets, self._loading = loading.name, lora_targets, loading

    def load(self, options: LoadOptions) -> NetChatModel:
        """Load as chat does."""
        return self._loading.chat(options)

    def most_positions(self, options: SFTOptions) -> int:
        """Return the context that config.json states: what the net does beyond it nobody knows."""
        return ConfigValues(read_config(options.model), options.model / "config.json").size(
            "max_position_embeddings"
        )

    def check(self, options: LoadOptions) -> None:
        """Check all that shows without reading weights."""
        self._loading.prepare(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that chat uses."""
        return self._loading.templates.chosen(options)

    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        """Return the backbone's vocabulary."""
        return self._loading.tokenizer(options.model)

    def shape(self, options: SFTOptions) -> ModelDims | None:
        """Return the net's dimensions, its memory measured without values; None for a net that needs them.

        Raises UsageError for LoRA where no layer can have it.
        """
        return self._loading.dims(self, options)

    def write_small_files(self, options: LoadOptions, model: nn.Module, folder: Path) -> dict[str, Any]:
        """Copy the backbone's small files; config.json stays what it was."""
        copy_files(options.model, folder, self._loading.small_files)
        return read_config(options.model)


def _open_lora(folder: Path) -> LoraAdapter:
    """Open an adapter. Raises CheckpointError: as `open_adapter`, and for any that is more than LoRA matrices."""
    adapter = open_adapter(folder)
    if not isinstance(adapter, LoraAdapter) or adapter.saved:
        raise no_fit(folder, say("自定义网络只接受普通 LoRA", "a net of one's own takes plain LoRA"))
    return adapter


def _trial(prepared: PreparedNet) -> list[int]:
    """Return a few ids of everywhere in the vocabulary, to try an adapter with."""
    count = min(_TRIAL_TOKENS, prepared.context_length)
    return [prepared.tokenizer.size * number // count for number in range(count)]


def _tied(net: nn.Module) -> dict[str, str]:
    """Return the later names of shared parameters, each with the first."""
    first: dict[int, str] = {}
    named = net.named_parameters(remove_duplicate=False)
    return {name: known for name, weight in named if (known := first.setdefault(id(weight), name)) != name}


def _drop_values(net: nn.Module) -> None:
    """Move parameters and persistent buffers to the meta device; other buffers keep what the net computed."""
    for module in net.modules():
        for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=weight.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            if name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to("meta"))
