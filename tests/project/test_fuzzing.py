"""The bounds on a fuzzed reader hold whatever way it takes memory or time, and count the reader alone."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable

import pytest
from fuzzing import MEGABYTES, SECONDS, fuzz
from hypothesis import strategies as st

MANY = 1 << 20
BLOCK = b"x" * (10 * MANY)
KEPT: list[bytes] = []
LEFT: list[mmap.mmap] = []


def hold_much_for_a_moment(case: int) -> None:
    bytes((MEGABYTES + 10) * MANY)


def keep_some_each_time(case: int) -> None:
    KEPT.append(bytes(MEGABYTES // 10 * MANY))


def take_and_give_back(megabytes: int) -> None:
    with mmap.mmap(-1, megabytes * MANY) as pages:
        while pages.tell() < len(pages):
            pages.write(BLOCK)


def take_much_beside_python(case: int) -> None:
    take_and_give_back(MEGABYTES + 300)


def leave_some_beside_python(case: int) -> None:
    LEFT.append(mmap.mmap(-1, MEGABYTES // 10 * MANY))
    while LEFT[-1].tell() < len(LEFT[-1]):
        LEFT[-1].write(BLOCK)


@pytest.mark.parametrize(
    ("read", "examples"),
    [
        (leave_some_beside_python, 12),
        (hold_much_for_a_moment, 1),
        (keep_some_each_time, 12),
        (take_much_beside_python, 1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_reader_that_takes_too_much_fails(read: Callable[[int], None], examples: int) -> None:
    with pytest.raises(AssertionError, match="largest"):
        fuzz(read, st.integers(), examples)
    KEPT.clear()
    LEFT.clear()


def test_what_each_call_gives_back_does_not_add_up() -> None:
    fuzz(lambda case: take_and_give_back(MEGABYTES // 5), st.integers(), 12)


def test_a_higher_peak_of_an_earlier_test_hides_nothing() -> None:
    take_much_beside_python(0)
    with pytest.raises(AssertionError, match="largest"):
        fuzz(take_much_beside_python, st.integers(), 1)


def test_a_reader_that_computes_too_long_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzing.SECONDS", SECONDS / 40)

    def compute(case: int) -> None:
        began = time.process_time()
        while time.process_time() - began <= SECONDS / 40:
            pass

    with pytest.raises(AssertionError, match="seconds"):
        fuzz(compute, st.just(0), 1)


def test_what_the_cases_take_is_not_the_readers() -> None:
    big = st.builds(lambda: KEPT.append(b"x" * (MEGABYTES // 5 * MANY)))
    try:
        fuzz(lambda case: None, big, 8)
    finally:
        KEPT.clear()
