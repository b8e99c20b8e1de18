"""How much work one rendering of a chat template may be, counted and not timed.

A unit is a node of the template that is executed, a character that an operation reads or writes, or an item
of a list that it looks at. So whatever a template does, its time and its memory are bounded alike, and it is
refused on every machine or on none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined
from jinja2.runtime import Macro

from medchat.language import say

#: What a rendering may cost however short the chat, and for each message of it: some fifty times what
#: templates of the published shapes take for one message, five times what they take for each further one.
BASE = 400_000
PER_MESSAGE = 4_000
#: More digits than any count in a prompt has; arithmetic on longer numbers is no longer one step.
MOST_BITS = 4096
_DEEPEST_CALLS = 20
_BITS_OF_A_UNIT = 64


class TooMuch(TemplateRuntimeError):
    """The template asks for more work or text than any prompt needs."""


def too_long_a_number() -> TooMuch:
    """Return the refusal of arithmetic on numbers that no count needs."""
    return TooMuch(say("数字超过一千位", "a number of more than a thousand digits"))


class Budget:
    """What is left for one rendering."""

    def __init__(self, messages: int) -> None:
        self._whole = self._left = BASE + PER_MESSAGE * messages
        self._macros: list[Macro] = []

    @property
    def spent(self) -> int:
        """Units spent so far."""
        return self._whole - self._left

    def spend(self, units: int) -> None:
        """Take `units` off. Raises TooMuch where there are not so many left."""
        self._left -= units
        if self._left < 0:
            raise TooMuch(
                say(
                    "文字或运算量超出了这样长的提示词所需",
                    "more text or more work than a prompt of this length needs",
                )
            )

    def spend_length(self, value: object) -> None:
        """Spend the characters or items of `value`, not what its items hold. Raises TooMuch."""
        if isinstance(value, (str, list, tuple, dict)):
            self.spend(len(value))

    def spend_all(self, *values: object, to_print: bool = False) -> None:
        """Spend every character and item of `values`, as often as it occurs in them.

        Raises TypeError if they are `to_print` and something in them is no data: a namespace, a macro.
        """
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            self.spend(1)
            if isinstance(value, (list, tuple)):
                waiting += self._items(value)
            elif isinstance(value, dict):
                waiting += [*self._items(value), *value.values()]
            elif isinstance(value, (str, range)):
                self.spend(len(value))
            elif isinstance(value, int):
                self.spend(value.bit_length() // _BITS_OF_A_UNIT)
            elif to_print and not isinstance(value, (float, Undefined, type(None))):
                raise TypeError(
                    say(f"{type(value).__name__} 不能当作文字写出", f"a {type(value).__name__} has no text")
                )

    def _items(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> Iterable[Any]:
        self.spend(len(value))  # before they are copied
        return value

    def number(self, value: object) -> None:
        """Raises TooMuch for a number of more than MOST_BITS."""
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise too_long_a_number()

    @contextmanager
    def inside(self, macro: Macro) -> Iterator[None]:
        """While inside, `macro` may not be called again: raises TooMuch, as for macros called too deep."""
        if macro in self._macros:
            raise TooMuch(say(f"宏 {macro.name} 调用了自己", f"the macro {macro.name} calls itself"))
        if len(self._macros) == _DEEPEST_CALLS:
            raise TooMuch(
                say(
                    f"宏的相互调用超过 {_DEEPEST_CALLS} 层",
                    f"macros call one another more than {_DEEPEST_CALLS} deep",
                )
            )
        self._macros.append(macro)
        try:
            yield
        finally:
            self._macros.pop()


_CURRENT: ContextVar[Budget] = ContextVar("budget")


def current() -> Budget:
    """Return the budget of the rendering under way. Raises LookupError if there is none."""
    return _CURRENT.get()


@contextmanager
def budget(messages: int) -> Iterator[Budget]:
    """While inside, everything counts against one budget for a chat of so many messages."""
    made = Budget(messages)
    token = _CURRENT.set(made)
    try:
        yield made
    finally:
        _CURRENT.reset(token)
