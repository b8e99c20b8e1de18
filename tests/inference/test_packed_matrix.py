"""The products of the native engine: exact where they claim to be, the same however they are computed."""

from __future__ import annotations

import os
import signal
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_engine import COMPILED
from numpy.typing import NDArray

from medchat.inference.cpu_engine.library import LIBRARY_FILE, open_library
from medchat.inference.cpu_engine.packed_matrix import (
    GROUP_COLUMNS,
    RANGES,
    PackedMatrix,
    group_count,
    packed_bytes,
)

pytestmark = COMPILED
USABLE = open_library().usable if LIBRARY_FILE.is_file() else ()

#: How far rounding activations to 16 bits, or 24 where precise, and adding in float32 move a product, as a share of
#: the sum of magnitudes that were added.
ROUNDING = {False: 2.0**-15, True: 2.0**-21}
PRECISE = pytest.mark.parametrize("precise", ROUNDING)


def drawn(rows: int, columns: int, bits: int, seed: int = 0) -> PackedMatrix:
    """Return a matrix of random integers, the ends of their range among them, and random scales."""
    random = np.random.default_rng(seed)
    low, high = RANGES[bits]
    integers = random.integers(low, high + 1, (rows, columns)).astype(np.int8)
    integers.flat[0], integers.flat[-1] = low, high
    scales = random.uniform(1e-4, 1e-2, (rows, group_count(columns))).astype(np.float16)
    return PackedMatrix.pack(integers, scales, bits)


def activations(tokens: int, columns: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((tokens, columns)).astype(np.float32)


shapes = st.tuples(st.integers(1, 70), st.integers(1, 130), st.sampled_from([4, 8]), st.integers(0, 99))


# ---------------------------------------------------------------- what is kept


@given(shapes)
@settings(max_examples=40)
def test_what_is_packed_comes_back_bit_by_bit(shape: tuple[int, int, int, int]) -> None:
    rows, columns, bits, seed = shape
    random = np.random.default_rng(seed)
    low, high = RANGES[bits]
    integers = random.integers(low, high + 1, (rows, columns)).astype(np.int8)
    scales = random.standard_normal((rows, group_count(columns))).astype(np.float16)
    packed = PackedMatrix.pack(integers, scales, bits)
    assert len(packed.data) == packed_bytes(rows, columns, bits)
    again, scales_again = packed.unpack()
    assert np.array_equal(again, integers) and np.array_equal(scales_again.view("u2"), scales.view("u2"))


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (16, 32), (2049, 1500), (70_000, 33)])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_that_comes_in_parts_has_the_same_bytes_and_takes_little_beside(
    bits: int, rows: int, columns: int
) -> None:
    low, high = RANGES[bits]
    integers = np.random.default_rng(0).integers(low, high + 1, (rows, columns), np.int8)
    scales = np.linspace(-1, 1, rows * group_count(columns), dtype=np.float16).reshape(rows, -1)
    tracemalloc.start()
    packed = PackedMatrix.pack_in_parts(rows, columns, bits, lambda some: (integers[some], scales[some]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(packed.data, PackedMatrix.pack(integers, scales, bits).data)
    assert peak < len(packed.data) + 2_500_000


def test_parts_of_another_size_are_refused() -> None:
    integers, scales = np.zeros((64, 32), np.int8), np.ones((64, 1), np.float16)
    with pytest.raises(ValueError, match="rows from 0"):
        PackedMatrix.pack_in_parts(60, 32, 8, lambda _: (integers, scales))
    with pytest.raises(ValueError, match="rows from 0"):
        PackedMatrix.pack_in_parts(64, 31, 8, lambda rows: (integers[rows], scales[rows]))


def test_a_large_matrix_takes_little_more_than_its_integers_and_scales() -> None:
    assert packed_bytes(4096, 4096, 8) == 4096 * 4096 * (1 + 2 / GROUP_COLUMNS)
    assert packed_bytes(4096, 4096, 4) == 4096 * 4096 * (1 / 2 + 2 / GROUP_COLUMNS)


# ---------------------------------------------------------------- what is computed


@given(shapes, st.integers(1, 9), st.booleans())
@settings(max_examples=60)
def test_a_product_is_that_of_float64_up_to_the_rounding_of_activations(
    shape: tuple[int, int, int, int], tokens: int, precise: bool
) -> None:
    rows, columns, bits, seed = shape
    packed, inputs = drawn(rows, columns, bits, seed), activations(tokens, columns)
    bias = activations(1, rows, seed)[0]
    weights = packed.dense().astype(np.float64)
    wanted = inputs.astype(np.float64) @ weights.T + bias
    allowed = ROUNDING[precise] * np.abs(inputs).max() * np.abs(weights).sum(1) + 1e-6
    assert (np.abs(packed.multiply(inputs, bias=bias, precise=precise) - wanted) <= allowed).all()


@given(shapes, st.integers(1, 19), st.integers(1, 5), st.booleans())
@settings(max_examples=60)
def test_instruction_sets_and_threads_give_the_same_bits(
    shape: tuple[int, int, int, int], tokens: int, threads: int, precise: bool
) -> None:
    rows, columns, bits, seed = shape
    packed, inputs = drawn(rows, columns, bits, seed), activations(tokens, columns)
    reference = packed.multiply(inputs, instructions="scalar", precise=precise)
    for instructions in USABLE:
        found = packed.multiply(inputs, threads=threads, instructions=instructions, precise=precise)
        assert np.array_equal(found.view("u4"), reference.view("u4")), instructions


@pytest.mark.parametrize("instructions", USABLE)
@pytest.mark.parametrize("bits", RANGES)
@PRECISE
def test_a_token_gets_the_same_bits_alone_and_among_any_others(
    bits: int, instructions: str, precise: bool
) -> None:
    packed, inputs = drawn(48, 96, bits), activations(15, 96)
    how = {"instructions": instructions, "precise": precise}
    together = packed.multiply(inputs, **how)
    alone = np.concatenate([packed.multiply(token[None], **how) for token in inputs])
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("instructions", USABLE)
@pytest.mark.parametrize("bits", RANGES)
@PRECISE
def test_whole_activations_of_the_largest_size_are_multiplied_without_error(
    bits: int, instructions: str, precise: bool
) -> None:
    low, high = RANGES[bits]
    columns = 2 * GROUP_COLUMNS
    for extreme in (low, high):
        integers = np.full((16, columns), extreme, np.int8)
        packed = PackedMatrix.pack(integers, np.ones((16, 2), np.float16), bits)
        for sign in (1, -1):
            # The largest of a group becomes the largest integer, so that the sums are as large as they get.
            inputs = np.full((1, columns), sign * 32512, np.float32)
            found = packed.multiply(inputs, instructions=instructions, precise=precise)
            assert (found == sign * 32512 * extreme * columns).all()


@pytest.mark.parametrize("instructions", USABLE)
def test_what_a_third_byte_holds_is_kept(instructions: str) -> None:
    packed = PackedMatrix.pack(np.ones((16, 32), np.int8), np.ones((16, 1), np.float16), 8)
    inputs = np.zeros((1, 32), np.float32)
    # Bytes at both ends of their range, and one that is carried into the next.
    for value in (1 / 256, 127 / 256, 128 / 256, -128 / 256, 255.5, -32511.75, 129 / 256):
        inputs[0, :2] = 32512, value
        found = packed.multiply(inputs, instructions=instructions, precise=True)
        assert (found == np.float32(32512 + value)).all(), value
        assert (packed.multiply(inputs, instructions=instructions) != found).all() or value % 1 == 0


def test_every_finite_scale_of_float16_acts_as_it_is() -> None:
    patterns = np.arange(2**16, dtype=np.uint16).view(np.float16)
    scales = patterns[np.isfinite(patterns)].reshape(-1, 1)
    packed = PackedMatrix.pack(np.ones((len(scales), 1), np.int8), scales, 8)
    for instructions in USABLE:
        found = packed.multiply(np.full((1, 1), 32512, np.float32), instructions=instructions)
        assert np.array_equal(found[0], scales[:, 0].astype(np.float32) * 32512), instructions


@pytest.mark.parametrize("instructions", USABLE)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_spoils_its_own_token_alone(broken: float, instructions: str) -> None:
    packed, inputs = drawn(20, 70, 8), activations(3, 70)
    sound = packed.multiply(inputs, instructions=instructions)
    inputs[1, 40] = broken
    found = packed.multiply(inputs, instructions=instructions)
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], sound[[0, 2]])


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-36, 1e-31, 1e-30, 1e30])
def test_the_smallest_and_largest_activations_give_finite_products(size: float) -> None:
    packed = drawn(16, 64, 8)
    found = packed.multiply(np.full((1, 64), size, np.float32))
    wanted = packed.dense().astype(np.float64).sum(1) * size
    assert np.isfinite(found).all() and np.allclose(found[0], wanted, rtol=1e-3, atol=1e-28)


# ---------------------------------------------------------------- threads and processes


def test_several_callers_at_once_each_get_their_own_product() -> None:
    packed = drawn(64, 256, 4)
    inputs = [activations(5, 256, seed) for seed in range(4)]
    wanted = [packed.multiply(one) for one in inputs]
    found: list[Any] = [None] * len(inputs)

    def ask(index: int) -> None:
        for _ in range(20):
            found[index] = packed.multiply(inputs[index], threads=3)

    callers = [threading.Thread(target=ask, args=(index,)) for index in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    packed, inputs = drawn(256, 64, 8), activations(2, 64)
    wanted = packed.multiply(inputs, threads=3)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        os._exit(0 if np.array_equal(packed.multiply(inputs, threads=3), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---------------------------------------------------------------- what is refused before any pointer is made

INTEGERS, SCALES = np.zeros((3, 40), np.int8), np.ones((3, 2), np.float16)


@pytest.mark.parametrize(
    "build",
    [
        lambda: PackedMatrix.pack(INTEGERS[0], SCALES, 8),
        lambda: PackedMatrix.pack(INTEGERS.astype(np.int16), SCALES, 8),
        lambda: PackedMatrix.pack(INTEGERS[:, :0], SCALES, 8),
        lambda: PackedMatrix.pack(INTEGERS[:0], SCALES[:0], 8),
        lambda: PackedMatrix.pack(INTEGERS, SCALES[:, :1], 8),
        lambda: PackedMatrix.pack(INTEGERS, SCALES.astype(np.float32), 8),
        lambda: PackedMatrix.pack(INTEGERS, SCALES * np.float16(np.inf), 8),
        lambda: PackedMatrix.pack(INTEGERS + np.int8(8), SCALES, 4),
        lambda: PackedMatrix.pack(INTEGERS - np.int8(9), SCALES, 4),
        lambda: PackedMatrix.pack(INTEGERS, SCALES, 5),
        lambda: packed_bytes(2**31, 1, 8),
        lambda: packed_bytes(1, -1, 8),
        lambda: PackedMatrix(np.zeros(packed_bytes(3, 40, 8) - 1, np.uint8), 3, 40, 8),
        lambda: PackedMatrix(np.zeros(packed_bytes(3, 40, 8), np.int8), 3, 40, 8),
        lambda: PackedMatrix(np.zeros(2 * packed_bytes(3, 40, 8), np.uint8)[::2], 3, 40, 8),
        lambda: PackedMatrix(np.zeros(1 + packed_bytes(3, 40, 8), np.uint8)[1:], 3, 40, 8),
    ],
)
def test_what_is_no_matrix_is_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        build()


@pytest.mark.parametrize(
    ("inputs", "more"),
    [
        (np.zeros((1, 39), np.float32), {}),
        (np.zeros(40, np.float32), {}),
        (np.zeros((1, 40), np.float64), {}),
        (np.zeros((1, 40), np.float32), {"bias": np.zeros(4, np.float32)}),
        (np.zeros((1, 40), np.float32), {"bias": np.zeros(3, np.float64)}),
        (np.zeros((1, 40), np.float32), {"threads": 0}),
        (np.zeros((1, 40), np.float32), {"instructions": "sse9"}),
    ],
)
def test_what_does_not_fit_the_matrix_is_refused(inputs: NDArray[Any], more: dict[str, Any]) -> None:
    packed = PackedMatrix.pack(INTEGERS, SCALES, 8)
    assert packed.multiply(np.zeros((0, 40), np.float32)).shape == (0, 3)
    with pytest.raises(ValueError):
        packed.multiply(inputs, **more)


@pytest.mark.parametrize("bits", RANGES)
def test_inputs_of_any_order_in_memory_are_read_by_their_shape(bits: int) -> None:
    packed, inputs = drawn(16, 64, bits), activations(6, 64)
    wanted = packed.multiply(inputs)
    assert np.array_equal(packed.multiply(np.asfortranarray(inputs)), wanted)
    assert np.array_equal(packed.multiply(np.repeat(inputs, 2, axis=0)[::2]), wanted)
