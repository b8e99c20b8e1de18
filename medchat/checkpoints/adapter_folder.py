"""What `--adapter` takes on causal models: LoRA, Houlsby's bottlenecks, or a prefix. No torch here.

    adapters = [open_adapter(folder) for folder in options.adapters]

All three are folders with an adapter_config.json, whose `peft_type` tells them apart. Laying them over a
model is `laying`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.layout import Candidates, open_checkpoint, require_folder
from medchat.checkpoints.lora_folder import (
    CONFIG_FILE,
    FLAG,
    TEMPLATE_KEY,
    LoraAdapter,
    is_lora_folder,
    open_lora,
    stated_base_name,
)
from medchat.checkpoints.published_adapters import check_base, match_published
from medchat.checkpoints.stated_base import stated_base_note
from medchat.checkpoints.weight_files import Checkpoint
from medchat.errors import CheckpointError
from medchat.language import say

#: `peft_type` of the two that are not LoRA; the first is ours, the second peft's.
BOTTLENECK, PREFIX = "MEDCHAT_HOULSBY", "PREFIX_TUNING"
#: A prefix with an encoder of its own, which only ChatGLM has: no causal model takes it.
CHATGLM_PREFIX = "CHATGLM_P_TUNING_V2"
WEIGHTS_NAME = "adapter_model.safetensors"
#: The one tensor of a prefix, and what a bottleneck is called in the linear it follows.
PREFIX_TENSOR, BOTTLENECK_CHILD = "prompt_embeddings", "bottleneck"
_FILES: Candidates = ((WEIGHTS_NAME, "safetensors"), ("adapter_model.bin", "bin"))
_MARK = f".{BOTTLENECK_CHILD}."


@dataclass(frozen=True, slots=True)
class BottleneckAdapter:
    """A folder with bottlenecks of `size`, its configuration and headers read."""

    folder: Path
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    size: int
    template: str = ""
    base: str = ""

    def widths(self) -> dict[str, int]:
        """Return the width of each linear that a bottleneck follows, by the model's name."""
        found = {}
        for name, header in self.headers.items():
            module, mark, rest = name.partition(_MARK)
            if mark and rest == "down.weight" and len(header.shape) == 2:
                found[module] = header.shape[1]
        return found


@dataclass(frozen=True, slots=True)
class KeyValueAdapter:
    """A folder with a prefix of keys and values, its configuration and header read."""

    folder: Path
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    template: str = ""
    base: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Positions, and the width of keys and values of all layers together."""
        length, width = self.headers[PREFIX_TENSOR].shape
        return length, width


class HasCheckpoint(Protocol):
    """An adapter of any family."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Its weight files."""
        ...


Adapter = LoraAdapter | BottleneckAdapter | KeyValueAdapter


def open_adapter(folder: Path) -> Adapter:
    """Open an adapter folder of any kind. Raises CheckpointError: missing, damaged, empty, of no known kind."""
    kind = kind_of(folder)
    if kind not in (BOTTLENECK, PREFIX):
        return open_lora(folder)
    stated = read_json_object(folder / CONFIG_FILE)
    checkpoint = open_checkpoint(folder, _FILES, FLAG)
    headers, template = read_headers(checkpoint), _text(stated.get(TEMPLATE_KEY))
    base = stated_base_name(stated)
    if kind == PREFIX:
        if set(headers) != {PREFIX_TENSOR} or len(headers[PREFIX_TENSOR].shape) != 2:
            raise no_fit(
                folder, say(f"应当只有张量 {PREFIX_TENSOR}", f"it must hold {PREFIX_TENSOR} and nothing else")
            )
        return KeyValueAdapter(folder, checkpoint, headers, template, base)
    size = stated.get("size")
    if type(size) is not int or not 0 < size < 2**16:
        raise no_fit(folder, f"size = {size!r}"[:80])
    adapter = BottleneckAdapter(folder, checkpoint, headers, size, template, base)
    if not adapter.widths():
        raise no_fit(folder, say("里面没有瓶颈层的权重", "it holds no bottlenecks"))
    return adapter


def kind_of(folder: Path) -> str:
    """Return the `peft_type` that the folder states, "" if none. Raises CheckpointError: missing, damaged."""
    require_folder(folder, FLAG)
    return _text(read_json_object(folder / CONFIG_FILE).get("peft_type")) if is_lora_folder(folder) else ""


def with_vocabulary(adapters: Sequence[Adapter]) -> list[LoraAdapter]:
    """Return the adapters that hold whole tensors beside their matrices: those of a grown vocabulary."""
    return [adapter for adapter in adapters if isinstance(adapter, LoraAdapter) and adapter.saved]


def without_vocabulary(adapters: Sequence[Adapter]) -> list[Adapter]:
    """Return the others: those that a question is answered with."""
    return [adapter for adapter in adapters if not (isinstance(adapter, LoraAdapter) and adapter.saved)]


def positions_taken(adapters: Sequence[Adapter]) -> int:
    """Return how many positions of the context the prefixes among `adapters` occupy."""
    return sum(adapter.shape[0] for adapter in adapters if isinstance(adapter, KeyValueAdapter))


def files_passed_over(checkpoint: Checkpoint, adapters: Iterable[HasCheckpoint]) -> tuple[str, ...]:
    """Return what to tell the user of weight files that were there and not used: of the model, of adapters."""
    return (*checkpoint.notes, *(note for adapter in adapters for note in adapter.checkpoint.notes))


def base_notes(adapter: Adapter, base: str, model: Path) -> tuple[str, ...]:
    """Return what to tell the user of the adapter on `base`, the folder `model`. Raises what `check_base` does."""
    if isinstance(adapter, LoraAdapter):
        return check_base(adapter, base, model)
    note = stated_base_note(adapter, model)
    return (note,) if note else ()


def known_template(adapter: Adapter) -> str:
    """Return the name of the template that a published adapter was trained on, "" for any other."""
    found = match_published(adapter) if isinstance(adapter, LoraAdapter) else None
    return found.known.template if found else ""


def no_fit(folder: Path, reason: str) -> CheckpointError:
    """Return the error for an adapter of another model."""
    return CheckpointError(
        say(f"适配器与这个模型不匹配（{reason}）", f"the adapter does not fit this model ({reason})"),
        remedy(),
        where=str(folder),
    )


def remedy() -> str:
    """Return what to do about an adapter that does not fit."""
    return say(
        "请确认它是为这个模型训练的，且文件完整", "check that it was trained for this model and is complete"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
