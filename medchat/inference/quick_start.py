"""Answering from packed weights without torch, which takes seconds to import: where that is possible at all.

    chat = quick_start(options, build)

A family's `build` makes a chat model of the weights; whatever is missing or does not fit, the result is None and the
family loads in the ordinary way, which says what is wrong. Imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medchat.api import DTYPES, ChatModel, LoadOptions
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.kept_quantized import kept_from, mark_used
from medchat.checkpoints.layout import open_checkpoint
from medchat.checkpoints.packed_weights import holds_packed
from medchat.checkpoints.weight_files import Checkpoint
from medchat.errors import MedchatError
from medchat.inference.cpu_engine.library import chosen_instructions, open_library
from medchat.inference.machine import has_bfloat16, memory_room
from medchat.inference.mapped_weights import MappedWeights

#: Where Linux shows that a driver for graphics cards is loaded, Nvidia's and AMD's: torch would compute there.
_GRAPHICS = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/kfd"))
#: Beside the weights, for the cache and the activations of an answer.
_MARGIN_BYTES = 64 * 2**20
#: Dimensions of an embedding.
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class QuickStart:
    """What a family makes a chat model of: packed weights, and the files that they are or were made from."""

    options: LoadOptions
    weights: MappedWeights
    original: Checkpoint


def wanted_engine(options: LoadOptions) -> str:
    """Return the engine that `options` ask for: "auto" is torch where float32 was asked for.

    Whoever asks for float32 gets the reference; the native engine comes within 1e-4 of its logits.
    """
    return "torch" if options.engine == "auto" and options.dtype == "float32" else options.engine


def quick_start(options: LoadOptions, build: Callable[[QuickStart], ChatModel]) -> ChatModel | None:
    """Return what `build` makes of the weights of `options`; None where the ordinary way is to be taken.

    `build` takes all the tensors that it needs, and raises ValueError for what does not fit, or an error of ours.
    Raises what `options.watch` raises.
    """
    if not options.quick_start or options.adapters or not _computes_here(options):
        return None
    try:
        chosen_instructions(open_library())
        found = next(_built(options, build), None)
    except (MedchatError, OSError):
        return None
    if found is None:
        return None
    model, total = found
    if options.watch is not None:
        options.watch(total, total)
    return model


def _computes_here(options: LoadOptions) -> bool:
    """Say whether the native engine is wanted, and the CPU, or there is nothing else to compute on."""
    alone = sys.platform == "linux" and not any(file.exists() for file in _GRAPHICS)
    on_cpu = options.device == "cpu" or (options.device == "auto" and alone)
    return on_cpu and wanted_engine(options) in ("auto", "native")


def _built(options: LoadOptions, build: Callable[[QuickStart], ChatModel]) -> Iterator[tuple[ChatModel, int]]:
    """Yield each model that can be made, with the bytes of its weights."""
    dtype = _dtype(options.dtype)
    if dtype is None:
        return
    original = open_checkpoint(options.model)
    for folder in _packed_folders(options, original):
        checkpoint = open_checkpoint(folder)
        weights = MappedWeights(checkpoint, read_headers(checkpoint), dtype)
        kept = folder != original.folder
        if checkpoint.file_bytes + _MARGIN_BYTES > memory_room() or (kept and not _has_dtype(weights)):
            continue
        with suppress(ValueError):
            model = build(QuickStart(options, weights, original))
            weights.require_all_taken()
            if options.quantize in ("none", weights.quantization):
                if kept:
                    mark_used(folder)
                yield model, checkpoint.file_bytes


def _packed_folders(options: LoadOptions, original: Checkpoint) -> Iterator[Path]:
    """Yield the folders whose weights may be meant: the model's own, or those kept when it was quantised."""
    if original.format == "safetensors" and holds_packed(read_headers(original)):
        yield original.folder
    elif options.quantize != "none" and options.quantized_cache is not None:
        yield from kept_from(options.quantized_cache, original)


def _has_dtype(weights: MappedWeights) -> bool:
    """Say whether the weights were kept for what the model computes in: their embedding then has it."""
    return all(
        header.dtype == weights.dtype for header in weights.headers.values() if len(header.shape) == _MATRIX
    )


def _dtype(wanted: str) -> str | None:
    """Return what the model is to compute in; None where only torch can tell."""
    if wanted != "auto":
        return wanted if wanted in DTYPES else None
    known = has_bfloat16()
    return None if known is None else "bfloat16" if known else "float32"
