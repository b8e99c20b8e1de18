"""The operators of a chat template, each of which counts what it reads and writes before it does so."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from string import Formatter
from types import GeneratorType
from typing import Any

from medchat.language import say
from medchat.templates.jinja_budget import MOST_BITS, TooMuch, current, too_long_a_number

#: Names that no template can write: what the compiler puts in for operators of the language.
STEP, LOOP, COMPARE, CONCAT, SLICE, KEY = "<step>", "<loop>", "<compare>", "<concat>", "<slice>", "<key>"

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda item, container: item in container,
    "notin": lambda item, container: item not in container,
}
_PERCENT = re.compile(r"%(?:\(\w+\))?(.|$)", re.DOTALL)


def settled(value: Any) -> Any:
    """Return `value`, a list of its items where they only come as they are asked for."""
    return list(value) if isinstance(value, (GeneratorType, reversed)) else value


def spent(result: Any) -> Any:
    """Return `result`, its length spent; what comes item by item is counted as it comes."""
    if isinstance(result, (GeneratorType, reversed)):
        return _counted(result, 1)
    current().spend_length(result)
    return result


def printed(value: Any) -> str:
    """Return what printing `value` writes. Raises TooMuch, TypeError for what is no data."""
    if not isinstance(value, str):
        current().spend_all(value, to_print=True)
        value = str(value)
    current().spend(1 + len(value))
    return str(value)


def _step(value: Any, cost: int) -> None:
    current().spend(cost)


def _counted(items: Iterable[Any], cost: int) -> Iterator[Any]:
    budget = current()
    for item in items:
        budget.spend(cost)
        yield item


def _compare(left: Any, *compared: Any) -> Any:
    """A chain of comparisons: by turns an operator's name and what follows it."""
    result: Any = True
    for name, right in zip(compared[::2], compared[1::2], strict=True):
        if name in ("in", "notin"):
            right = settled(right)
            current().spend_all(left)
        if not (name in ("in", "notin") and isinstance(right, dict)):
            current().spend_all(left, right)
        result = _COMPARISONS[name](left, right)
        if not result:
            return result
        left = right
    return result


def _concat(parts: list[Any]) -> str:
    return "".join([printed(part) for part in parts])


def _slice(value: Any, start: Any, stop: Any, step: Any) -> Any:
    current().spend_length(value)
    return value[start:stop:step]


def _key(value: Any) -> Any:
    """A key is hashed, and a tuple of tuples of tuples takes long to hash."""
    current().spend_all(value)
    return value


def binary(symbol: str, left: Any, right: Any) -> None:
    """Spend what `left symbol right` costs, before it is worked out. Raises TooMuch."""
    budget = current()
    if isinstance(left, str) and symbol == "%":
        check_percent(left, right if isinstance(right, tuple) else (right,))
        return
    if symbol == "*" and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        counted, times = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(times, int):
            budget.spend(max(0, times) * (len(counted) if isinstance(counted, (str, list, tuple)) else 1))
        return
    for operand in (left, right):
        budget.spend_length(operand)
        budget.number(operand)
    whole = isinstance(left, int) and isinstance(right, int)
    if symbol == "**" and whole and left.bit_length() * right > MOST_BITS:
        raise too_long_a_number()


def spend_replacing(text: str, old: Any = "", new: Any = "") -> None:
    """Spend the new text as often as it will be put in."""
    if isinstance(old, str) and isinstance(new, str):
        current().spend(text.count(old) * len(new))


def check_percent(form: str, values: tuple[Any, ...]) -> None:
    """Spend what a `%` form writes: each value once, a named one each time. Raises TooMuch for a width in it."""
    found = [str(letter) for letter in _PERCENT.findall(form)]
    if any(letter not in "sdif%" for letter in found):
        raise TooMuch(
            say("格式中只能用 %s、%d、%i、%f 和 %%", "only %s, %d, %i, %f and %% are known in a form")
        )
    current().spend(len(form))
    for _ in range(max(1, len(found))):
        current().spend_all(*values, to_print=True)


def check_braces(form: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Spend what a form of `{}`, `{0}` and `{name}` writes. Raises TooMuch for a width, an attribute or an index."""
    for _, name, specification, conversion in Formatter().parse(form):
        if name is None:
            continue
        if specification or conversion or not re.fullmatch(r"\w*", name):
            raise TooMuch(
                say("格式中只能用 {}、{0} 和 {name}", "only {}, {0} and {name} are known in a form")
            )
        current().spend_all(*args, *kwargs.values(), to_print=True)


#: What the compiler puts in for the operators, by the names above.
OPERATORS: dict[str, Callable[..., Any]] = {
    STEP: _step,
    LOOP: _counted,
    COMPARE: _compare,
    CONCAT: _concat,
    SLICE: _slice,
    KEY: _key,
}
