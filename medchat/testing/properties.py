"""What makes a method a property of the kit."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from unittest import SkipTest


def tested_property(test: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the test, which is skipped with the reason where the class declares that it does not apply."""

    @wraps(test)
    def run(self: Any) -> None:
        if reason := self.declared().get(test.__name__):
            raise SkipTest(reason)
        test(self)

    return run
