"""Writing the weights of a model quantised: read, packed and written one matrix at a time.

The file is safetensors, in the original's names and types, but for the weight of a quantised linear: that is one row
of bytes, packed as the native engine takes it (`stored_linear`), whatever CPU wrote it.
"""

from __future__ import annotations

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
from medchat.inference.load_weights import Placement, check_finite, require_match
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
    """One tensor of the file, the one it is made from, and the linear whose weight it is: None where it is copied."""

    name: str
    source: str
    dtype: str
    shape: tuple[int, ...]
    layer: GroupedLinear | None


class QuantizedFile:
    """The file that a prepared model would be written to. `header` is all that stands before the values."""

    def __init__(self, prepared: PreparedModel) -> None:
        """Raises CheckpointError where the files do not fit the model (`require_match`)."""
        self._prepared = prepared
        # Types of many bytes first: so every tensor begins at a multiple of its own.
        self._tensors = sorted(_plan(prepared), key=lambda one: -ITEM_BYTES[one.dtype])
        self.header = safetensors_header((one.name, one.dtype, one.shape) for one in self._tensors)
        sizes = [int(np.prod(one.shape, dtype=np.int64)) * ITEM_BYTES[one.dtype] for one in self._tensors]
        starts = np.cumsum([len(self.header), *sizes])
        self._starts = {one.source: int(start) for one, start in zip(self._tensors, starts, strict=False)}
        #: Bytes of the whole file.
        self.size = int(starts[-1])

    def write(self, file: Path) -> None:
        """Write it, calling `placement.watch` with the bytes read. Raises CheckpointError (damaged), OSError."""
        prepared, by_source = self._prepared, {one.source: one for one in self._tensors}
        total = sum(header.byte_count for header in prepared.headers.values() if header.name in by_source)
        counter = ReadCounter(total, prepared.placement.watch)
        with file.open("wb") as stream:
            stream.write(self.header)
            stream.truncate(self.size)
            for tensor in read_tensors(prepared.checkpoint, by_source.__contains__):
                stream.seek(self._starts[tensor.name])
                layer = by_source[tensor.name].layer
                if layer is None:
                    _copy(tensor, counter, stream)
                else:
                    stream.write(_packed(tensor, layer, counter).data)


def _plan(prepared: PreparedModel) -> Iterator[_Written]:
    model, placement = prepared.model, prepared.placement
    names = require_match(model, prepared.checkpoint, prepared.headers, placement)
    for plain, header in prepared.headers.items():
        if header.name not in names:
            continue
        layer = None
        if names[header.name] in placement.conversions:
            found = model.get_submodule(names[header.name].rpartition(".")[0])
            layer = found if isinstance(found, GroupedLinear) else None
        if layer is None:
            yield _Written(plain, header.name, header.dtype, header.shape, None)
        else:
            size = packed_bytes(layer.out_features, layer.in_features, layer.bits)
            yield _Written(plain, header.name, PACKED_TYPE, (size,), layer)


def _copy(tensor: StoredTensor, counter: ReadCounter, stream: BinaryIO) -> None:
    for _, piece in tensor.pieces():
        counter.add(piece)
        check_finite(tensor, piece)
        stream.write(piece.contiguous().view(torch.uint8).numpy().data)


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
