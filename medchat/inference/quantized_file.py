"""Writing the weights of a model quantised: read, packed and written one matrix at a time.

The file is safetensors, in the original's names and types, but for the weight of a quantised linear: that is one row
of bytes, packed as the native engine takes it (`stored_linear`), whatever CPU wrote it. A packed head that is tied in
the original stands beside the embedding that it is made from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medchat.checkpoints.headers import ITEM_BYTES, TensorHeader, safetensors_header
from medchat.checkpoints.packed_weights import PACKED_TYPE
from medchat.checkpoints.weight_files import Checkpoint
from medchat.inference.cpu_engine.packed_matrix import group_count, packed_bytes
from medchat.inference.cpu_engine.tile_layout import pack_tiles
from medchat.inference.group_scales import GroupedLinear, quantize_groups
from medchat.inference.load_weights import Placement, check_finite, require_match, target_dtype
from medchat.inference.quantization import unpack_rows
from medchat.inference.shards import ReadCounter, StoredTensor, read_tensors


class PreparedModel(Protocol):
    """What a family knows before the first weight is read: a model without values, and where these are."""

    @property
    def model(self) -> nn.Module:
        """The model on the meta device; a `GroupedLinear` stands where a weight is to be quantised."""
        ...

    @property
    def checkpoint(self) -> Checkpoint:
        """The files of the original."""
        ...

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Their tensors by plain name."""
        ...

    @property
    def placement(self) -> Placement:
        """How they become the model's."""
        ...


@dataclass(frozen=True, slots=True)
class _Written:
    """One tensor of the file, the one it is made from, and the linear whose weight it is: None where it is copied.

    `dtype` is torch's name of the type that it has in the file.
    """

    name: str
    source: str
    dtype: str
    shape: tuple[int, ...]
    layer: GroupedLinear | None


class QuantizedFile:
    """The file that a prepared model would be written to. `header` is all that stands before the values."""

    def __init__(self, prepared: PreparedModel, *, as_loaded: bool = False) -> None:
        """`as_loaded` gives what is not quantised the type that the placement gives it, so that it can be mapped too.

        Raises CheckpointError where the files do not fit the model (`require_match`).
        """
        self._prepared = prepared
        # Types of many bytes first: so every tensor begins at a multiple of its own.
        tensors = sorted(_plan(prepared, as_loaded), key=lambda one: -ITEM_BYTES[one.dtype])
        self.header = safetensors_header((one.name, one.dtype, one.shape) for one in tensors)
        self._by_source: dict[str, list[tuple[_Written, int]]] = {}
        #: Bytes of the whole file.
        self.size = len(self.header)
        for one in tensors:
            self._by_source.setdefault(one.source, []).append((one, self.size))
            self.size += math.prod(one.shape) * ITEM_BYTES[one.dtype]

    def write(self, file: Path) -> None:
        """Write it, calling `placement.watch` with the bytes read. Raises CheckpointError (damaged), OSError."""
        prepared = self._prepared
        total = sum(
            header.byte_count * len(self._by_source.get(header.name, ()))
            for header in prepared.headers.values()
        )
        counter = ReadCounter(total, prepared.placement.watch)
        with file.open("wb") as stream:
            stream.write(self.header)
            stream.truncate(self.size)
            for tensor in read_tensors(prepared.checkpoint, self._by_source.__contains__):
                for written, start in self._by_source[tensor.name]:
                    stream.seek(start)
                    if written.layer is None:
                        _copy(tensor, written.dtype, counter, stream)
                    else:
                        stream.write(_packed(tensor, written.layer, counter).data)


def _plan(prepared: PreparedModel, as_loaded: bool) -> Iterator[_Written]:
    model, placement = prepared.model, prepared.placement
    names = require_match(model, prepared.checkpoint, prepared.headers, placement)
    slots = dict(model.named_parameters()) | dict(model.named_buffers())
    for plain, header in prepared.headers.items():
        name = names.get(header.name)
        if name is None:
            continue
        layers = _packed_from(name, prepared)
        for made, layer in layers.items():
            size = packed_bytes(layer.out_features, layer.in_features, layer.bits)
            file_name = plain if made == name else made
            yield _Written(file_name, header.name, PACKED_TYPE, (size,), layer)
        if name not in layers:
            loaded = str(target_dtype(name, slots[name], placement)).removeprefix("torch.")
            dtype = loaded if as_loaded else header.dtype
            yield _Written(plain, header.name, dtype, header.shape, None)


def _packed_from(name: str, prepared: PreparedModel) -> dict[str, GroupedLinear]:
    """Return the linears whose weights are made from the stored tensor of `name`, by the names of these weights."""
    conversion = prepared.placement.conversions.get(name)
    made = () if conversion is None else conversion.makes
    owners = {one: prepared.model.get_submodule(one.rpartition(".")[0]) for one in made}
    return {
        one: owner
        for one, owner in owners.items()
        if isinstance(owner, GroupedLinear) and one.endswith(".weight")
    }


def _copy(tensor: StoredTensor, dtype: str, counter: ReadCounter, stream: BinaryIO) -> None:
    for _, piece in tensor.pieces():
        counter.add(piece)
        made = piece.to(getattr(torch, dtype))
        check_finite(tensor, piece, made)
        stream.write(made.contiguous().view(torch.uint8).numpy().data)


def _packed(tensor: StoredTensor, layer: GroupedLinear, counter: ReadCounter) -> NDArray[np.uint8]:
    shape = layer.out_features, layer.in_features
    integers = np.empty(shape, np.int8)
    scales = np.empty((shape[0], group_count(shape[1])), np.float16)
    for rows, piece in tensor.pieces():
        counter.add(piece)
        packed, scale = quantize_groups(piece, layer.bits)
        check_finite(tensor, piece)
        check_finite(tensor, piece, scale)
        integers[rows] = unpack_rows(packed, layer.bits).numpy()
        scales[rows] = scale.numpy()
    return pack_tiles(integers, scales, layer.bits)
