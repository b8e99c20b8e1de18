"""Fuzzing a reader: for any input it returns or raises what it documents, within limits of time and memory."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Case = TypeVar("Case")

#: The number of cases: few in each run of the tests, many in the slow ones.
EXAMPLES = (60, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]))
#: CPU time: wall time on a busy machine says nothing about the reader.
SECONDS = 2
MEGABYTES = 200
#: Bytes that may be left after a call before a garbage collection.
_LOOK_CLOSER = 4096
#: The growth of the process in one call without a leak: hypothesis reuses the memory later.
_LEFT_MEGABYTES = 4
#: Nested deeper than any recursive parser can follow, and short.
DEEP = 100_000


class ReaderMemory:
    """The memory of a reader's calls, in megabytes, without that of the code around them.

    Hypothesis itself keeps what it has drawn: over 400 MB for ten thousand TOML files.
    """

    def __init__(self) -> None:
        self.largest = 0.0  # the most that one call held at a time, of what Python allocates
        self.kept = 0.0  # what was still held after each call, of all calls together
        self.process = 0.0  # the most by which one call raised the peak of the process: libraries too
        self.grown = 0.0  # by how much the process was larger after calls that left much, all together

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count what is taken in this block."""
        _forget_peak()
        before, resident = _peak_megabytes(), _resident_megabytes()
        gc.freeze()  # no collection looks through what hypothesis keeps: with 400 MB of it each took a second
        tracemalloc.start()
        try:
            yield
        finally:
            kept, largest = tracemalloc.get_traced_memory()
            for generation in (1, 2):  # the young are soon looked through, all only where that is not enough
                if kept > _LOOK_CLOSER:
                    gc.collect(generation)  # an error and the frames it names wait for the collector
                    kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            gc.unfreeze()
            self.largest = max(self.largest, largest / (1 << 20))
            self.kept += kept / (1 << 20)
            self.process = max(self.process, _peak_megabytes() - before)
            left = _resident_megabytes() - resident
            self.grown += left if left > _LEFT_MEGABYTES else 0

    @property
    def within_bounds(self) -> bool:
        """Whether all four are within bounds."""
        return max(self.largest, self.kept, self.process, self.grown) < MEGABYTES


def fuzz(
    read: Callable[[Case], object],
    cases: SearchStrategy[Case],
    examples: int,
    *allowed: type[Exception],
) -> None:
    """Call `read` with so many of the cases. Fails on an exception not `allowed`, over 2 seconds, over 200 MB."""
    memory = ReaderMemory()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: Case) -> None:
        with memory.measured():
            began = time.process_time()
            with suppress(*allowed):
                read(case)
            taken = time.process_time() - began
        assert taken < SECONDS, f"{taken:.1f} seconds"

    run()
    assert memory.within_bounds, vars(memory)


def _forget_peak() -> None:
    """Reset Linux's peak: a higher one of an earlier test would hide this one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _resident_megabytes() -> float:
    """Return what the process holds now, where Linux says it; else 0."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / (1 << 20)
    return 0.0


# Arbitrary files: well-formed with odd values, torn, or not text at all.

_ODD = st.sampled_from(
    [
        "[" * DEEP,
        '{"a":' * DEEP,
        "9" * 5000,
        "1e999",
        "-1e-999",
        "NaN",
        "Infinity",
        '"\\ud800"',
        '"\\u0000"',
        "null",
    ]
)


def json_files(names: Sequence[str]) -> SearchStrategy[bytes]:
    """Return files that are, or nearly are, JSON objects with some of the keys `names`."""
    keys = st.sampled_from(names) | st.text(max_size=6)
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(codec=None), max_size=8)
    )
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )
    objects = st.dictionaries(keys, values, max_size=6)
    texts = (objects | values).map(lambda value: json.dumps(value).encode())
    odd = st.tuples(st.sampled_from(names), _ODD).map(lambda pair: f'{{"{pair[0]}": {pair[1]}}}'.encode())
    return _torn(texts | odd | _ODD.map(str.encode))


def toml_files(names: Sequence[str]) -> SearchStrategy[bytes]:
    """Return files that are, or nearly are, TOML with some of the keys `names`."""
    texts = st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False))
    values = st.one_of(
        texts,
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(
            ["true", "1979-05-27", "07:32:00", "{a = 1}", "[1, 'a']", "[" * DEEP, "{a=" * 3000, "9" * 5000,
             "1e999", "nan", '"\\u0000"', '"' + "长" * 3000 + '"', "'~nobody-here/x'", "'./\\u0000'"]
        ),
    )  # fmt: skip
    lines = st.tuples(st.sampled_from(names) | st.text("abc.\"' ", min_size=1, max_size=5), values)
    written = lines.map(lambda line: f"{line[0]} = {line[1]}") | st.sampled_from(
        ["[generation]", "[[x]]", "[" + "a." * 20000 + "a]", "a." * 20000 + "a = 1"]
    )
    return _torn(st.lists(written, max_size=5).map(lambda lines: "\n".join(lines).encode(errors="replace")))


def _torn(files: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    cut = st.tuples(files, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    return files | cut | st.binary(max_size=60)
