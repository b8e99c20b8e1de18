"""Random checkpoints of full size, written one shard in memory at a time; what all families share.

The values repeat one seeded block at shifted places: every row differs, and nothing depends on a download.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_BLOCK = 2**24 + 43  # a prime: rows of a power of two never meet the same values again soon
_DEVIATION = 0.02
_CONSTANTS = {"ones": 1.0, "zeros": 0.0, "tenths": 0.1, "scale": _DEVIATION / 64}


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor to write. `kind` chooses its values; embedding and head are one "table", stored twice."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str = "random"

    @property
    def byte_count(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_shards(folder: Path, shards: Sequence[Sequence[Stored]], seed: int = 0) -> int:
    """Write one `.bin` a shard, and the index where there are several; return the bytes of all tensors."""
    values = _Values(seed)
    single = len(shards) == 1
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        suffix = "" if single else f"-{number:05d}-of-{len(shards):05d}"
        file = folder / f"pytorch_model{suffix}.bin"
        torch.save({tensor.name: values.make(tensor) for tensor in shard}, file)
        placed |= {tensor.name: file.name for tensor in shard}
    total = sum(tensor.byte_count for shard in shards for tensor in shard)
    if not single:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return total


class _Values:
    """Values for a tensor, each the seeded block at another place."""

    def __init__(self, seed: int) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self._random = torch.randn(_BLOCK, generator=drawn).mul_(_DEVIATION).half()
        self._integers = torch.randint(-127, 128, (_BLOCK,), generator=drawn, dtype=torch.int8)
        self._place = 0

    def make(self, tensor: Stored) -> Tensor:
        """Return the tensor with the values of its kind."""
        if tensor.kind in _CONSTANTS:
            return torch.full(tensor.shape, _CONSTANTS[tensor.kind], dtype=tensor.dtype)
        if tensor.kind == "frequencies":
            count = tensor.shape[0]
            return (10000.0 ** (-torch.arange(count, dtype=torch.float32) / count)).to(tensor.dtype)
        block = self._integers if tensor.kind == "integers" else self._random
        place = 0 if tensor.kind == "table" else self._next_place()
        filled = torch.empty(math.prod(tensor.shape), dtype=tensor.dtype)
        for start in range(0, len(filled), _BLOCK - place):
            part = filled[start : start + _BLOCK - place]
            part.copy_(block[place : place + len(part)])
        return filled.view(tensor.shape)

    def _next_place(self) -> int:
        self._place = (self._place + 7919) % (_BLOCK // 2)
        return self._place
