"""Fuzzing a reader: whatever it is given, it returns or raises what it documents, soon and in little memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

Case = TypeVar("Case")

#: How many cases a reader is given: few in each run of the tests, many in the slow ones.
EXAMPLES = (60, pytest.param(10_000, marks=pytest.mark.slow))
SECONDS = 2
MEGABYTES = 200
#: Deeper than any parser that calls itself can follow, and short.
DEEP = 100_000


def fuzz(
    read: Callable[[Case], object],
    cases: SearchStrategy[Case],
    examples: int,
    *allowed: type[Exception],
) -> None:
    """Call `read` with so many of the cases. Fails on an exception not `allowed`, over 2 seconds, over 200 MB."""

    @settings(
        max_examples=examples,
        deadline=timedelta(seconds=SECONDS),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: Case) -> None:
        with suppress(*allowed):
            read(case)

    before = _peak_megabytes()
    run()
    assert _peak_megabytes() - before < MEGABYTES


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
