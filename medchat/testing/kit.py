"""The kit itself: all properties together, and the guard against a subclass that leaves one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from medchat.testing.answers import AnswerProperties
from medchat.testing.declarations import DeclaredProperties
from medchat.testing.finetuning import FineTuningProperties
from medchat.testing.folders import FolderProperties
from medchat.testing.prompts import PromptProperties
from medchat.testing.subject import expect


class BackboneTests(
    AnswerProperties, PromptProperties, FolderProperties, DeclaredProperties, FineTuningProperties
):
    """Subclass it with a name that begins with `Test`, and state `backbone`.

    A property that the family cannot have stands in `not_applicable` with the reason; it may then be overridden, and
    is skipped where it is not. One that is deleted, or overridden without that, fails: when the class is made, and
    once more as `test_nothing_is_left_out`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if fault := weakness(cls):
            raise TypeError(fault)

    def test_nothing_is_left_out(self) -> None:
        """Every property of the kit is run, or declared with a reason.

        When it fails: take the override of the test that it names away, or put its name into `not_applicable` with
        a sentence that says why this family cannot have the property.
        """
        fault = weakness(type(self))
        expect(not fault, fault)


#: Every property by its name, as the kit has it.
PROPERTIES: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {name: getattr(BackboneTests, name) for name in sorted(dir(BackboneTests)) if name.startswith("test_")}
)


def weakness(cls: type[BackboneTests]) -> str:
    """Return which property the class leaves out without a reason, "" where it leaves out none."""
    declared = cls.declared()
    for name, reason in declared.items():
        if name not in PROPERTIES:
            return f"not_applicable names {name}, which is no property of the kit"
        if not isinstance(reason, str) or not reason.strip():
            return f"not_applicable gives no reason for {name}"
    for name, original in PROPERTIES.items():
        if getattr(cls, name, None) is not original and name not in declared:
            return f"{cls.__name__} overrides or deletes {name}, and not_applicable gives no reason"
    return ""
