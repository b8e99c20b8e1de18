"""Running the properties without pytest, for `medchat plugins test`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Literal
from unittest import SkipTest

from medchat.errors import MedchatError
from medchat.testing.kit import PROPERTIES, BackboneTests
from medchat.testing.subject import NotMetError


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one property.

    `detail`: why it was skipped, or what was expected and came. `remedy`: what the error says to do, "" where nothing.
    """

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str = ""
    remedy: str = ""

    @property
    def explained(self) -> str:
        """What the property proves, and what to do when it fails."""
        return getdoc(PROPERTIES[self.name]) or ""


def run_properties(tests: type[BackboneTests], only: Collection[str] = ()) -> Iterator[Result]:
    """Try the properties of the kit, or those named, one after the other, and yield what became of each."""
    tests.setup_class()
    try:
        for name in PROPERTIES:
            if not only or name in only:
                yield _tried(tests(), name)
    finally:
        tests.teardown_class()


def _tried(tests: BackboneTests, name: str) -> Result:
    try:
        getattr(tests, name)()
    except SkipTest as reason:
        return Result(name, "skipped", str(reason))
    except NotMetError as fault:
        return Result(name, "failed", str(fault))
    except MedchatError as error:
        return Result(name, "failed", f"{type(error).__name__}: {error.what}", remedy=error.remedy)
    except Exception as error:
        return Result(name, "failed", f"{type(error).__name__}: {error}")
    return Result(name, "passed")
