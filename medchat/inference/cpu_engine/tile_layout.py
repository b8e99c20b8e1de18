"""The layout of packed matrices in numpy: the same bytes as the library's, and to be had without a compiler.

docs/specs/engine.md, "Packed matrices".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.packed_matrix import (
    BLOCK_ROWS,
    GROUP_COLUMNS,
    RANGES,
    group_count,
    integer_bytes,
    packed_bytes,
)

#: Columns that lie side by side in a stripe, and columns of a stripe of int4 whose halves share a byte.
_SIDE_BY_SIDE, _HALF = 4, GROUP_COLUMNS // 2
#: So many values are packed at a time: a head takes several times its size on the way.
_VALUES_AT_ONCE = 2**22


def pack_tiles(integers: NDArray[np.int8], scales: NDArray[np.float16], bits: int) -> NDArray[np.uint8]:
    """Return what `PackedMatrix.pack` makes of integers [rows, columns] and scales [rows, groups], in range.

    Raises ValueError as `packed_bytes`.
    """
    rows, columns = integers.shape
    data = np.empty(packed_bytes(rows, columns, bits), np.uint8)
    groups, blocks = group_count(columns), -(-rows // BLOCK_ROWS)
    count = integer_bytes(rows, columns, bits)
    by_row = data[:count].reshape(blocks, -1)
    step = max(1, _VALUES_AT_ONCE // (BLOCK_ROWS * groups * GROUP_COLUMNS))
    for first in range(0, blocks, step):
        some = integers[first * BLOCK_ROWS : (first + step) * BLOCK_ROWS]
        by_row[first : first + step] = _blocks_of_tiles(some, bits)
    by_block = data[count:].view("<f2").reshape(blocks, groups, BLOCK_ROWS)
    padded = np.zeros((blocks * BLOCK_ROWS, groups), np.float16)
    padded[:rows] = scales
    by_block[:] = padded.reshape(blocks, BLOCK_ROWS, groups).transpose(0, 2, 1)
    return data


def _blocks_of_tiles(integers: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Return the tiles of integers [rows, columns], a row for each block, zeros where there are none."""
    rows, columns = integers.shape
    groups, blocks = group_count(columns), -(-rows // BLOCK_ROWS)
    filled = np.zeros((blocks * BLOCK_ROWS, groups * GROUP_COLUMNS), np.int8)
    filled[:rows, :columns] = integers
    stored: NDArray[np.uint8] = filled.view(np.uint8) + np.uint8(-RANGES[bits][0])
    if bits == 4:
        halves = stored.reshape(len(stored), groups, 2, _HALF)
        stored = halves[:, :, 0] | halves[:, :, 1] * np.uint8(16)
    stripes = stored.reshape(blocks, BLOCK_ROWS, groups, -1).view(f"V{_SIDE_BY_SIDE}")
    return np.ascontiguousarray(stripes.transpose(0, 2, 3, 1)).view(np.uint8).reshape(blocks, -1)


def unpack_tiles(
    data: NDArray[np.uint8], rows: int, columns: int, bits: int
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Return the integers [rows, columns] and scales [rows, groups] of `data`, as `PackedMatrix.unpack` does.

    Raises ValueError as `packed_bytes`, and where `data` has another length than that.
    """
    if data.shape != (packed_bytes(rows, columns, bits),):
        raise ValueError(f"{data.shape} is not a matrix of {rows} x {columns} in {bits} bits")
    groups, blocks = group_count(columns), -(-rows // BLOCK_ROWS)
    count = integer_bytes(rows, columns, bits)
    stripes = data[:count].reshape(blocks, groups, -1, BLOCK_ROWS * _SIDE_BY_SIDE).view(f"V{_SIDE_BY_SIDE}")
    stored = np.ascontiguousarray(stripes.transpose(0, 3, 1, 2)).view(np.uint8)
    stored = stored.reshape(blocks * BLOCK_ROWS, groups, -1)
    if bits == 4:
        stored = np.concatenate((stored & 0x0F, stored >> 4), axis=-1)
    integers = (stored.reshape(len(stored), -1) + np.uint8(RANGES[bits][0] % 256)).view(np.int8)
    scales = data[count:].view("<f2").reshape(blocks, groups, BLOCK_ROWS).transpose(0, 2, 1)
    return integers[:rows, :columns], scales.reshape(-1, groups)[:rows].astype(np.float16)
