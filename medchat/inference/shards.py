"""The values of a checkpoint, one tensor at a time, without ever holding a whole shard in memory.

Files are mapped, a tensor is handed out as pieces of some megabytes, and the pages of a piece are
given back as soon as it was used: a mapped shard counts as resident memory like any other.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medchat.checkpoints.headers import damaged_weights, unsafe_weights
from medchat.checkpoints.pickle_header import is_legacy
from medchat.checkpoints.weight_files import Checkpoint
from medchat.errors import CheckpointError
from medchat.inference.shortened_files import end_if_shortened
from medchat.language import say
from medchat.regular_files import SYSTEM_BYTES, read_regular

#: Bytes of one piece. Small, so that what a conversion needs on the way leaves no holes in the heap
#: (int4 while loading 6B: peak 1.03 of the weights with 2 MiB, 1.16 with 8, 1.33 with 32).
PIECE_BYTES = 2 * 2**20
#: How many pieces are read ahead. Measured on a cold file: half as fast again as without.
_AHEAD = 64
#: Before this release `weights_only` could be escaped (CVE-2025-32434, CVE-2026-24747).
OLDEST_SAFE_TORCH = (2, 10)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as it is in its file. `values` is on the CPU and may be a view of the mapped file."""

    name: str
    values: Tensor
    file: Path
    _pages: _Pages

    def pieces(self, piece_bytes: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, values of those rows) covering the tensor, along its first axis, in its dtype.

        `piece_bytes` 0 means PIECE_BYTES. A tensor without axes counts as one of one row. A piece is
        gone once the next is asked for.
        """
        values = self.values.reshape(1) if self.values.dim() == 0 else self.values
        rows = values.shape[0]
        row_bytes = max(1, values.nbytes // max(1, rows))
        step = max(1, (piece_bytes or PIECE_BYTES) // row_bytes)
        self._pages.fetch(values[: _AHEAD * step])
        for start in range(0, rows, step):
            piece = values[start : start + step]
            self._pages.fetch(values[start + _AHEAD * step : start + (_AHEAD + 1) * step])
            yield slice(start, min(start + step, rows)), piece
            self._pages.release(piece)

    def kept(self) -> Tensor:
        """Return the values where they lie, to be used from there: all of them are fetched, none is given back.

        Of the shape and dtype that they have in the file. Should that be made shorter later, the program ends with a
        sentence.
        """
        end_if_shortened(self.file)
        self._pages.fetch(self.values)
        return self.values


class ReadCounter:
    """Tells `watch`, where there is one, how many of `total` stored bytes were read; what it raises continues."""

    def __init__(self, total: int, watch: Callable[[int, int], None] | None) -> None:
        self._total, self._watch, self._read = total, watch, 0

    def add(self, piece: Tensor) -> None:
        """Count a piece, in its stored dtype."""
        self._read += piece.nbytes
        if self._watch is not None:
            self._watch(self._read, self._total)


def read_tensors(checkpoint: Checkpoint, wanted: Callable[[str], bool]) -> Iterator[StoredTensor]:
    """Yield the tensors whose stored name is `wanted`, file by file, in the order they are stored.

    Raises CheckpointError: refused pickle, torch too old to read pickles safely, damaged file.
    """
    read = _read_bin if checkpoint.format == "bin" else _read_safetensors
    for file in checkpoint.files:
        yield from read(file, wanted)


def _read_safetensors(file: Path, wanted: Callable[[str], bool]) -> Iterator[StoredTensor]:
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            pages: _Pages | None = None
            for name in filter(wanted, stored.keys()):
                values = stored.get_tensor(name)
                pages = pages or _Pages(file)  # the file is mapped with the first tensor
                yield StoredTensor(name, values, file, pages)
    except (SafetensorError, OSError) as error:
        raise damaged_weights(file, str(error)) from None


def _read_bin(file: Path, wanted: Callable[[str], bool]) -> Iterator[StoredTensor]:
    table = load_pickle(file)
    pages = _Pages(file)
    for name in list(table):
        values = table.pop(name)  # each goes when its turn is over, also where nothing is mapped
        if wanted(name):
            yield StoredTensor(name, values, file, pages)


def load_pickle(file: Path) -> dict[str, Tensor]:
    """Read a `.bin` with torch's safe unpickler, mapped where its format allows. Values are on the CPU.

    Raises CheckpointError: torch older than 2.10, anything but a plain table of dense tensors.
    Shapes and dtypes are those of the file.
    """
    require_safe_torch(file)
    try:
        table: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=not is_legacy(file))
    except MemoryError:
        raise
    except Exception as error:  # a hostile pickle can break its reader in any way; all mean one thing
        # torch's own text continues to say how to load the file unsafely.
        raise unsafe_weights(file, say("无法安全读取的内容", "what cannot be read safely")) from error
    if not isinstance(table, dict):
        raise unsafe_weights(file, type(table).__name__)
    for name, values in table.items():
        if not isinstance(name, str) or not isinstance(values, Tensor):
            raise unsafe_weights(file, f"{name} ({type(values).__name__})")
        if values.layout != torch.strided or values.is_quantized or values.device.type != "cpu":
            raise unsafe_weights(file, f"{name} ({values.layout})")
    return {name: values.detach() for name, values in table.items()}


def require_safe_torch(file: Path) -> None:
    """Raise CheckpointError if this torch is too old to read a pickle without running it."""
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if release < OLDEST_SAFE_TORCH:
        raise CheckpointError(
            say(
                f"torch {torch.__version__} 太旧，无法安全读取 {file.name}",
                f"torch {torch.__version__} is too old to read {file.name} safely",
            ),
            say(
                "请运行 pip install -U 'torch>=2.10'，或改用 safetensors 权重",
                "run pip install -U 'torch>=2.10', or use safetensors weights",
            ),
            where=str(file),
        )


class _Pages:
    """The memory of one mapped file: asks the system to read ahead, and gives used parts back.

    Only Linux counts and drops pages this way; elsewhere the mapping is left to the system.
    """

    def __init__(self, file: Path) -> None:
        self._spans = _mapped_spans(file)
        if self._spans:
            self._advise = ctypes.CDLL(None).madvise
            self._advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def fetch(self, piece: Tensor) -> None:
        """Begin to read the piece from disk, so that it is there when its turn comes."""
        if self._holds(piece):
            first = piece.data_ptr() - piece.data_ptr() % mmap.PAGESIZE
            self._advise(first, piece.data_ptr() + piece.nbytes - first, mmap.MADV_WILLNEED)

    def release(self, piece: Tensor) -> None:
        """Drop the pages of the piece from this process; they can be read again."""
        if self._holds(piece):
            first = piece.data_ptr() - piece.data_ptr() % mmap.PAGESIZE
            end = piece.data_ptr() + piece.nbytes
            last = end - end % mmap.PAGESIZE
            if last > first:
                self._advise(first, last - first, mmap.MADV_DONTNEED)

    def _holds(self, piece: Tensor) -> bool:
        # Dropping anonymous pages would zero them, so nothing outside the file's own mapping is touched.
        start, end = piece.data_ptr(), piece.data_ptr() + piece.nbytes
        inside = any(low <= start and end <= high for low, high in self._spans)
        return inside and piece.numel() > 0 and piece.is_contiguous()


def _mapped_spans(file: Path) -> list[tuple[int, int]]:
    """Return the address ranges at which `file` is mapped into this process."""
    if sys.platform != "linux":
        return []
    status = file.stat()
    identity = [f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", str(status.st_ino)]
    resolved, spans = [str(file.resolve())], []
    for line in read_regular("/proc/self/maps", SYSTEM_BYTES).decode("utf-8", "replace").split("\n")[:-1]:
        span, _, _, *found = line.split(maxsplit=5)
        # Layered file systems report another device and inode here than `stat` does.
        if found[:2] == identity or found[2:] == resolved:
            low, high = span.split("-")
            spans.append((int(low, 16), int(high, 16)))
    return spans
