"""A quantised matrix in the layout of the library, and its product (docs/specs/engine.md, "Packed matrices")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medchat.errors import MemoryShortageError
from medchat.inference.cpu_engine.library import INSTRUCTION_SETS, chosen_instructions, open_library
from medchat.language import say

#: Rows of a block and columns of a group, as in native/layout.h.
BLOCK_ROWS, GROUP_COLUMNS = 16, 32
#: More than any layer has; what is beyond it would overflow the library's sizes.
MOST = 2**31 - 1
_SCALE_BYTES = 2
#: So many values are packed at a time where a matrix is packed in parts.
_VALUES_AT_ONCE = 2**20
#: The integers of each width.
RANGES = {8: (-128, 127), 4: (-8, 7)}


def group_count(columns: int) -> int:
    """Return how many groups a row of `columns` has, the last one perhaps not full."""
    return -(-columns // GROUP_COLUMNS)


def integer_bytes(rows: int, columns: int, bits: int) -> int:
    """Return how many bytes of a packed matrix come before its scales."""
    return -(-rows // BLOCK_ROWS) * BLOCK_ROWS * group_count(columns) * (GROUP_COLUMNS * bits // 8)


def packed_bytes(rows: int, columns: int, bits: int) -> int:
    """Return how many bytes a packed matrix takes, scales and padding included. Raises ValueError as `pack`."""
    if bits not in RANGES:
        raise ValueError(f"{bits} bits: only {sorted(RANGES)} are known")
    if not (0 < rows <= MOST and 0 < columns <= MOST):
        raise ValueError(f"a matrix of {rows} x {columns}")
    scales = -(-rows // BLOCK_ROWS) * BLOCK_ROWS * group_count(columns)
    return integer_bytes(rows, columns, bits) + scales * _SCALE_BYTES


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """`rows` x `columns` integers of `bits` bits, a float16 scale for each row of a group: weight = integer * scale.

    `data` holds all of it. Raises ValueError where it has another size, type or order than that.
    """

    data: NDArray[np.uint8]
    rows: int
    columns: int
    bits: int

    def __post_init__(self) -> None:
        wanted = packed_bytes(self.rows, self.columns, self.bits)
        if self.data.dtype != np.uint8 or self.data.shape != (wanted,) or not self.data.flags.c_contiguous:
            raise ValueError(f"{self.data.dtype} {self.data.shape} is not {wanted} bytes in a row")
        if self.data.ctypes.data % _SCALE_BYTES:
            raise ValueError("the scales would lie at odd addresses")

    @classmethod
    def pack(cls, integers: NDArray[np.int8], scales: NDArray[np.float16], bits: int) -> PackedMatrix:
        """Pack integers [rows, columns] with scales [rows, groups].

        Raises ValueError for other shapes or types, integers beyond the width, and scales that are not finite.
        """
        if integers.ndim != 2 or integers.dtype != np.int8:
            raise ValueError(f"integers of {integers.dtype} {integers.shape}")
        rows, columns = integers.shape
        room = np.empty(packed_bytes(rows, columns, bits), np.uint8)
        if scales.shape != (rows, group_count(columns)) or scales.dtype != np.float16:
            raise ValueError(f"scales of {scales.dtype} {scales.shape}")
        low, high = RANGES[bits]
        if integers.min() < low or integers.max() > high:
            raise ValueError(f"integers beyond {low} to {high}")
        if not np.isfinite(scales).all():
            raise ValueError("scales that are not finite")
        integers, scales = np.ascontiguousarray(integers), np.ascontiguousarray(scales)
        open_library().functions.medchat_pack(
            bits, rows, columns, integers.ctypes.data, scales.ctypes.data, room.ctypes.data
        )
        return cls(room, rows, columns, bits)

    @classmethod
    def pack_in_parts(
        cls,
        rows: int,
        columns: int,
        bits: int,
        part: Callable[[slice], tuple[NDArray[np.int8], NDArray[np.float16]]],
    ) -> PackedMatrix:
        """Pack what `part(some rows)` returns, integers and scales as `pack` takes them, some rows at a time.

        So a large matrix never takes a byte for each of its weights. Raises ValueError as `pack`.
        """
        room = np.empty(packed_bytes(rows, columns, bits), np.uint8)
        step = max(1, _VALUES_AT_ONCE // (BLOCK_ROWS * group_count(columns) * GROUP_COLUMNS)) * BLOCK_ROWS
        places = [0, integer_bytes(rows, columns, bits)]
        for first in range(0, rows, step):
            some = cls.pack(*part(slice(first, min(first + step, rows))), bits)
            if (some.rows, some.columns) != (min(step, rows - first), columns):
                raise ValueError(f"rows from {first} on are {some.rows} x {some.columns}")
            end = integer_bytes(some.rows, columns, bits)
            for index, data in enumerate((some.data[:end], some.data[end:])):
                room[places[index] : places[index] + len(data)] = data
                places[index] += len(data)
        return cls(room, rows, columns, bits)

    def unpack(self) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """Return the integers [rows, columns] and scales [rows, groups] that were packed."""
        integers = np.empty((self.rows, self.columns), np.int8)
        scales = np.empty((self.rows, group_count(self.columns)), np.float16)
        open_library().functions.medchat_unpack(
            self.bits,
            self.rows,
            self.columns,
            self.data.ctypes.data,
            integers.ctypes.data,
            scales.ctypes.data,
        )
        return integers, scales

    def dense(self) -> NDArray[np.float32]:
        """Return the weights [rows, columns], exact."""
        integers, scales = self.unpack()
        spread = np.repeat(scales.astype(np.float32), GROUP_COLUMNS, axis=1)[:, : self.columns]
        return integers.astype(np.float32) * spread

    def multiply(
        self,
        inputs: NDArray[np.float32],
        *,
        bias: NDArray[np.float32] | None = None,
        threads: int = 1,
        precise: bool = False,
        instructions: str = "",
    ) -> NDArray[np.float32]:
        """Return inputs [tokens, columns] times the transposed weights, plus `bias` [rows]: [tokens, rows].

        Activations are rounded to 16 bits, or 24 if `precise`, in groups of 32; the result does not depend on
        `threads`, on the other tokens, or on the instruction set ("" takes `chosen_instructions`). NaN and infinity
        become NaN.
        Raises ValueError for other shapes or types, UsageError for instructions that this CPU lacks,
        MemoryShortageError.
        """
        self._check_shapes(inputs, bias)
        if threads < 1:
            raise ValueError(f"{threads} threads")
        library = open_library()
        chosen = instructions or chosen_instructions(library)
        if chosen not in library.usable:
            raise ValueError(f"instructions {chosen!r}, this CPU has {library.usable}")
        inputs = np.ascontiguousarray(inputs)
        bias = None if bias is None else np.ascontiguousarray(bias)
        outputs = np.empty((len(inputs), self.rows), np.float32)
        failed = library.functions.medchat_multiply(
            *(
                INSTRUCTION_SETS.index(chosen),
                threads,
                precise,
                self.bits,
                self.rows,
                self.columns,
                self.data.ctypes.data,
            ),
            None if bias is None else bias.ctypes.data,
            *(len(inputs), inputs.ctypes.data, outputs.ctypes.data),
        )
        if failed:
            raise MemoryShortageError(say("运行中内存不足", "memory ran out while running"))
        return outputs

    def _check_shapes(self, inputs: NDArray[np.float32], bias: NDArray[np.float32] | None) -> None:
        if inputs.ndim != 2 or inputs.shape[1] != self.columns or inputs.dtype != np.float32:
            raise ValueError(f"inputs of {inputs.dtype} {inputs.shape} for {self.columns} columns")
        if bias is not None and (bias.shape != (self.rows,) or bias.dtype != np.float32):
            raise ValueError(f"a bias of {bias.dtype} {bias.shape} for {self.rows} rows")
