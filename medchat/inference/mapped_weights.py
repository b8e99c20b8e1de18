"""Packed weights where they lie in their files, mapped, as the native engine takes them. Imports no torch.

    weights = MappedWeights(checkpoint, headers, "bfloat16")
    matrix = weights.packed("lm_head.weight", rows, columns)
    norm = weights.vector("model.norm.weight")

What does not fit raises ValueError: whoever wants to know why loads the weights in the ordinary way.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.packed_weights import is_packed
from medchat.checkpoints.weight_files import Checkpoint
from medchat.inference.cpu_engine.decoder_weights import Floats, Linear
from medchat.inference.cpu_engine.packed_matrix import RANGES, PackedMatrix, packed_bytes
from medchat.inference.shortened_files import end_if_shortened
from medchat.regular_files import UNLIMITED, open_regular

Bytes = NDArray[np.uint8]
_FLOAT_TYPES = ("float32", "float16", "bfloat16")


class MappedWeights:
    """The tensors of a checkpoint of packed weights, for a model that computes in `dtype`, one of DTYPES.

    `headers` are those of `read_headers`. `count` is how many weights were taken so far.
    """

    def __init__(self, checkpoint: Checkpoint, headers: Mapping[str, TensorHeader], dtype: str) -> None:
        self.checkpoint, self.headers, self.dtype = checkpoint, headers, dtype
        self._left = set(headers)
        self._places = _places(headers.values())
        self._files = {file: _mapped(file) for file in checkpoint.files}
        self._widths: set[int] = set()
        self.count = 0

    @property
    def quantization(self) -> str:
        """What the matrices taken so far are quantised to, one of QUANTIZE."""
        return f"int{min(self._widths)}"

    def packed(self, name: str, rows: int, columns: int) -> PackedMatrix:
        """Return a matrix; its pages are fetched meanwhile. Raises ValueError where it is none of that shape."""
        header = self._taken(name)
        for bits in RANGES:
            if is_packed(header) and header.byte_count == packed_bytes(rows, columns, bits):
                self._widths.add(bits)
                self.count += rows * columns
                return PackedMatrix(self._even(header), rows, columns, bits)
        raise ValueError(f"{name}: no packed matrix of {rows} x {columns}")

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = False) -> Linear:
        """Return the matrix NAME.weight and, where it has one, the vector NAME.bias."""
        matrix = self.packed(f"{name}.weight", rows, columns)
        return Linear(matrix, self.vector(f"{name}.bias") if bias else None)

    def vector(self, name: str, *, exact: bool = False) -> Floats:
        """Return a tensor in float32, rounded to what the model computes in unless it is `exact`."""
        header = self._taken(name)
        values = self._floats(header, self._bytes(header))
        self.count += header.count
        return np.require(values if exact else rounded(values, self.dtype), np.float32, ("C", "ALIGNED"))

    def embedding(self, name: str, columns: int) -> Embedding:
        """Return the rows of an embedding, to be read one by one. Raises ValueError where it is none of that width."""
        header = self._taken(name)
        if len(header.shape) != 2 or header.shape[1] != columns or header.dtype not in _FLOAT_TYPES:
            raise ValueError(f"{name}: no embedding of {columns} columns")
        self.count += header.count
        return Embedding(self._bytes(header).reshape(header.shape[0], -1), header.dtype, self.dtype)

    def require_all_taken(self) -> None:
        """Raise ValueError where a tensor of the files was not asked for."""
        if self._left:
            raise ValueError(f"left over: {sorted(self._left)[:3]}")

    def _taken(self, name: str) -> TensorHeader:
        if name not in self.headers:
            raise ValueError(f"no {name}")
        self._left.discard(name)
        return self.headers[name]

    def _bytes(self, header: TensorHeader) -> Bytes:
        start = self._places[header.file, header.name]
        return np.frombuffer(self._files[header.file], np.uint8, header.byte_count, start)

    def _even(self, header: TensorHeader) -> Bytes:
        """Return the bytes of a packed matrix, fetched, and copied where scales would lie at odd addresses."""
        start = self._places[header.file, header.name]
        page = start - start % mmap.PAGESIZE
        if hasattr(mmap, "MADV_WILLNEED"):
            self._files[header.file].madvise(mmap.MADV_WILLNEED, page, start - page + header.byte_count)
        found = self._bytes(header)
        return found.copy() if found.ctypes.data % 2 else found

    @staticmethod
    def _floats(header: TensorHeader, raw: Bytes) -> Floats:
        if header.dtype not in _FLOAT_TYPES:
            raise ValueError(f"{header.name}: {header.dtype}")
        values = widened(raw, header.dtype)
        if not np.isfinite(values).all():
            raise ValueError(f"{header.name}: not finite")
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The rows of an embedding as bytes [V, row], stored as `stored`, for a model that computes in `dtype`."""

    rows: Bytes
    stored: str
    dtype: str

    def __call__(self, ids: Sequence[int]) -> Floats:
        """Return the rows [T, width] of `ids` in float32."""
        return rounded(widened(np.ascontiguousarray(self.rows[list(ids)]), self.stored), self.dtype)


def widened(raw: Bytes, dtype: str) -> Floats:
    """Return the values of bytes [..., n] that hold `dtype`, in float32, exactly."""
    if dtype == "float32":
        return raw.view(np.float32)
    if dtype == "float16":
        return raw.view(np.float16).astype(np.float32)
    return (raw.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(values: Floats, dtype: str) -> Floats:
    """Return `values` rounded to the nearest of `dtype`, ties to even, in float32."""
    if dtype == "float32":
        return values
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    kept = (bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, kept.view(np.float32))


def _places(headers: Iterable[TensorHeader]) -> dict[tuple[Path, str], int]:
    """Return where the values of each tensor begin in its file: one behind the other up to its end."""
    files: dict[Path, list[TensorHeader]] = {}
    for header in headers:
        files.setdefault(header.file, []).append(header)
    places = {}
    for file, stored in files.items():
        place = file.stat().st_size - sum(header.byte_count for header in stored)
        for header in stored:
            places[file, header.name] = place
            place += header.byte_count
    return places


def _mapped(file: Path) -> mmap.mmap:
    with open_regular(file, most=UNLIMITED) as stream:
        end_if_shortened(file)
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
