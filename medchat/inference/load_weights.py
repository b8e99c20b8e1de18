"""Filling a model built on the meta device from a checkpoint: strict, in little more than its own size.

    checkpoint = open_checkpoint(folder)
    headers = read_headers(checkpoint)
    with torch.device("meta"):
        model = Model(config)
    assign(model, checkpoint, headers, Placement(dtype, device, ignore=("*.inv_freq",)))

Names, shapes and kinds are compared before the first weight is read. Knows no model family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.weight_files import Checkpoint
from medchat.inference.memory_shortage import raise_on_oom
from medchat.inference.shards import ReadCounter, StoredTensor, read_tensors
from medchat.inference.weight_faults import is_finite, not_finite, weights_mismatch
from medchat.language import say

#: Dimensions of an embedding.
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Conversion:
    """One stored tensor that becomes others on its way in, such as a weight that is quantised.

    `shape` is what the file must hold. `run` gets some of its rows, in their stored dtype, and returns
    the same rows of the model's tensors by name, which must be `makes`: no dense copy ever exists.
    """

    shape: tuple[int, ...]
    makes: tuple[str, ...]
    run: Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Placement:
    """How stored tensors become the model's.

    `dtype`: what floating values are cast to, except where a pattern of `keep` matches: those get the
    dtype that the model declares. `ignore`: patterns of plain stored names never read. `optional`: patterns
    of names of the model that may be absent from the file. `tied`: parameter -> the one whose memory
    it shares; a tied parameter is never read, and neither is a `derived` one, which the conversion of another
    stored tensor makes. `rename`: a stored tensor's plain name -> the model's.
    `conversions`: by the model's name of the stored tensor. `mapped`: names of the model whose values stay where they
    are, in the file, which is mapped: for a CPU, and of the dtype that the model declares. Beside them an embedding
    stays there too that has its final dtype: few of its rows are ever read. `config_file`: what states
    the sizes, for whoever reads that they are others. `watch` is called with the bytes read so far and in all, and may
    raise.
    Patterns are those of fnmatch.
    """

    dtype: torch.dtype
    device: torch.device
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    rename: Callable[[str], str] = str
    conversions: Mapping[str, Conversion] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()
    config_file: str = "config.json"
    watch: Callable[[int, int], None] | None = None


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Say whether `name` matches any of the fnmatch patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def assign(
    model: nn.Module, checkpoint: Checkpoint, headers: Mapping[str, TensorHeader], placement: Placement
) -> None:
    """Give every parameter and persistent buffer of `model` that is on the meta device its stored value.

    What is not on the meta device has its value already and may not be in the file. Memory grows by the
    weights in their final dtype and one piece of a tensor. Raises CheckpointError (missing, unexpected
    or mis-shaped tensors, values that are not finite, whatever the file reader raises) or
    MemoryShortageError.
    """
    slots = _empty_slots(model, placement)
    stored = _compare(slots, headers, placement, checkpoint)
    total = sum(header.byte_count for header in headers.values() if header.name in stored)
    counter = ReadCounter(total, placement.watch)
    with raise_on_weights_oom(placement.device):
        for tensor in read_tensors(checkpoint, stored.__contains__):
            name = stored[tensor.name]
            if _stays_in_file(name, tensor, slots, placement):
                _set(model, name, tensor.kept())
                counter.add(tensor.values)
                continue
            for made, values in _filled(tensor, name, slots, placement, counter).items():
                _set(model, made, values)
    for name, source in placement.tied.items():
        _tie(model, name, source)
    # A tensor that read_tensors never yielded would otherwise surface as a failure of the first answer.
    left = [name for name, slot in _slots(model) if slot.is_meta and not matches(name, placement.optional)]
    if left:
        raise weights_mismatch(checkpoint, missing=left)


def require_match(
    model: nn.Module, checkpoint: Checkpoint, headers: Mapping[str, TensorHeader], placement: Placement
) -> dict[str, str]:
    """Hold names, shapes and kinds of what is stored against `model`, as `assign` does before it reads.

    Returns the model's name of each tensor that is read, by its name in the file. Raises CheckpointError (missing,
    unexpected or mis-shaped tensors).
    """
    return _compare(_empty_slots(model, placement), headers, placement, checkpoint)


def loaded_weight_bytes(model: nn.Module, placement: Placement) -> int:
    """Return the bytes that `model`, filled by `placement`, will take on its device."""
    return sum(
        slot.numel() * target_dtype(name, slot, placement).itemsize
        for name, slot in _slots(model)
        if name not in placement.tied
    )


def _empty_slots(model: nn.Module, placement: Placement) -> dict[str, Tensor]:
    return {name: slot for name, slot in _slots(model) if slot.is_meta and name not in placement.tied}


def _slots(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter and persistent buffer by its name in a state dict, tied ones under every name."""
    yield from model.named_parameters(remove_duplicate=False)
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if name not in module._non_persistent_buffers_set:
                yield (f"{prefix}.{name}" if prefix else name), buffer


def _compare(
    slots: Mapping[str, Tensor],
    headers: Mapping[str, TensorHeader],
    placement: Placement,
    checkpoint: Checkpoint,
) -> dict[str, str]:
    """Return stored name -> the model's name for all that is to be read. Raises CheckpointError."""
    stored: dict[str, str] = {}
    unexpected: list[str] = []
    misfits: list[str] = []
    given: set[str] = set()
    for plain, header in headers.items():
        name = placement.rename(plain)
        if matches(plain, placement.ignore):
            continue
        if source_name := placement.tied.get(name) or placement.derived.get(name):
            source = tuple(slots[source_name].shape)
            if header.shape != source:
                misfits.append(f"{header.name} {_shape(header.shape)}, {_shape(source)}")
            continue
        conversion = placement.conversions.get(name)
        if conversion is None and name not in slots:
            unexpected.append(header.name)
            continue
        wanted = tuple(slots[name].shape) if conversion is None else conversion.shape
        if header.shape != wanted:
            misfits.append(f"{header.name} {_shape(header.shape)}, {_shape(wanted)}")
        elif not _same_kind(header, torch.float16 if conversion is not None else slots[name].dtype):
            misfits.append(f"{header.name} {header.dtype}, {slots[name].dtype}".replace("torch.", ""))
        stored[header.name] = name
        given.update(conversion.makes if conversion is not None else (name,))
    missing = [name for name in slots if name not in given and not matches(name, placement.optional)]
    if missing or unexpected or misfits:
        raise weights_mismatch(checkpoint, missing, unexpected, misfits, placement.config_file)
    return stored


def _same_kind(header: TensorHeader, wanted: torch.dtype) -> bool:
    held: torch.dtype = getattr(torch, header.dtype)
    return held == wanted or (held.is_floating_point and wanted.is_floating_point)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def target_dtype(name: str, slot: Tensor, placement: Placement) -> torch.dtype:
    """Return the dtype that `placement` gives to the values of `slot`, the model's tensor called `name`."""
    if not slot.is_floating_point() or matches(name, placement.keep):
        return slot.dtype
    return placement.dtype


def _stays_in_file(
    name: str, tensor: StoredTensor, slots: Mapping[str, Tensor], placement: Placement
) -> bool:
    if name in placement.mapped:
        return True
    if not placement.mapped or placement.device.type != "cpu" or name in placement.conversions:
        return False
    as_it_is = tensor.values.dtype == target_dtype(name, slots[name], placement)
    return as_it_is and tensor.values.dim() == _MATRIX


def _filled(
    tensor: StoredTensor,
    name: str,
    slots: Mapping[str, Tensor],
    placement: Placement,
    counter: ReadCounter,
) -> dict[str, Tensor]:
    """Return the model's tensors that `tensor`, stored for `name`, gives values to."""
    conversion = placement.conversions.get(name)
    makes = (name,) if conversion is None else conversion.makes
    targets = {
        made: torch.empty(
            slots[made].shape, dtype=target_dtype(made, slots[made], placement), device=placement.device
        )
        for made in makes
    }
    for rows, piece in tensor.pieces():
        counter.add(piece)
        made_rows = {name: piece} if conversion is None else conversion.run(piece)
        for made, target in targets.items():
            part = (target.reshape(1) if target.dim() == 0 else target)[rows]
            part.copy_(made_rows[made])
            check_finite(tensor, piece, part)
    return targets


def check_finite(tensor: StoredTensor, piece: Tensor, made: Tensor | None = None) -> None:
    """Raise CheckpointError if a piece of a stored tensor holds NaN or infinity, or what was `made` of it does.

    Any shape and dtype.
    """
    made = piece if made is None else made
    if not is_finite(made):
        raise not_finite(tensor, piece, made.dtype)


def _set(model: nn.Module, name: str, values: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    old = module._parameters.get(leaf)
    if old is None:
        module._buffers[leaf] = values
    else:
        module._parameters[leaf] = nn.Parameter(values, requires_grad=old.requires_grad)


def _tie(model: nn.Module, name: str, source: str) -> None:
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent)._parameters[leaf] = model.get_parameter(source)


def raise_on_weights_oom(device: torch.device) -> AbstractContextManager[None]:
    """Within this block an allocation for weights that fails raises MemoryShortageError naming `device`."""
    return raise_on_oom(
        say(
            "请加上 --quantize int8 或 int4，或关闭其他程序",
            "use --quantize int8 or int4, or close other programs",
        ),
        what=say(f"加载权重时内存不足（{device}）", f"out of memory while loading the weights ({device})"),
    )
