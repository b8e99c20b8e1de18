"""The filters, tests and methods that a chat template may use, each of which counts its work.

The lists hold what published templates use and its near relatives. Whatever is not in them is refused by
name, so nothing is ever run whose cost was not thought of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.runtime import LoopContext
from jinja2.tests import TESTS as DEFAULT_TESTS

from medchat.language import say
from medchat.templates.jinja_budget import MOST_BITS, TooMuch, current, too_long_a_number
from medchat.templates.jinja_operators import (
    OPERATORS,
    check_braces,
    check_percent,
    printed,
    settled,
    spend_replacing,
    spent,
)

# Look at one item, or at items as somebody asks for them.
_LIGHT_FILTERS = (
    *("count", "d", "default", "first", "items", "last", "length"),
    *("map", "reject", "rejectattr", "select", "selectattr"),
)
# Copy a list, not what is in it.
_COPYING_FILTERS = ("list", "reverse")
# Read everything they are given, and write at most a few times as much.
_THOROUGH_FILTERS = ("capitalize", "e", "escape", "lower", "safe", "string", "title", "trim", "upper")
# Compare each item with several others.
_SORTING_FILTERS = ("dictsort", "sort", "unique")
_LIGHT_TESTS = (
    *("boolean", "callable", "defined", "false", "float", "integer", "iterable", "mapping", "none"),
    *("number", "sameas", "sequence", "string", "true", "undefined"),
)
_THOROUGH_TESTS = (
    *("divisibleby", "eq", "equalto", "even", "ge", "greaterthan", "gt", "in", "le", "lessthan"),
    *("lower", "lt", "ne", "odd", "upper", "==", "!=", "<", "<=", ">", ">="),
)
_TEXT_METHODS = (
    *("capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha"),
    *("isdecimal", "isdigit", "islower", "isnumeric", "isspace", "isupper", "join", "lower", "lstrip"),
    *("partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit"),
    *("rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
)
#: What may be called on a value, by its type.
ALLOWED_METHODS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (str, _TEXT_METHODS),
    (dict, ("get", "items", "keys", "values")),
    (list, ("count", "index")),
    (tuple, ("count", "index")),
    (LoopContext, ("changed", "cycle")),
)
#: A number text longer than this is no count.
_LONGEST_NUMBER = 1000
_WIDEST_INDENT = 16
#: What sorting compares, for each item: the most by which it goes over a list.
_COMPARED = 20


def check_method(called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Spend what a method's call costs. Raises TooMuch, TypeError for one that is not in the lists."""
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    bound = isinstance(called, (BuiltinMethodType, MethodType))
    if not bound or not any(isinstance(owner, kind) and name in names for kind, names in ALLOWED_METHODS):
        called_name = name or type(called).__name__
        raise TypeError(say(f"对话模板不能调用 {called_name}", f"a chat template may not call {called_name}"))
    budget = current()
    if isinstance(owner, str):
        budget.spend(len(owner))
        if name == "replace":
            spend_replacing(owner, *args[:2])
        elif name == "format":
            check_braces(owner, args, kwargs)
        elif name == "join" and args:
            budget.spend(len(owner) * len(args[0]))
    elif isinstance(owner, (list, tuple)):
        budget.spend_all(owner)


# ---------------------------------------------------------------- filters of our own


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text = printed(value)
    spend_replacing(text, old, new)
    return text.replace(old, new, -1 if count is None else count)


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = printed(value)
    margin = " " * min(width, MOST_BITS) if isinstance(width, int) else width
    current().spend((text.count("\n") + 1) * len(margin))
    return str(DEFAULT_FILTERS["indent"](text, margin, first, blank))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: Jinja's own escapes what HTML has a meaning for."""
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= _WIDEST_INDENT):
        raise TooMuch(say(f"缩进超过 {_WIDEST_INDENT}", f"an indent of more than {_WIDEST_INDENT}"))
    if separators is not None:
        separators = (printed(separators[0])[:_WIDEST_INDENT], printed(separators[1])[:_WIDEST_INDENT])
    for _ in range(1 + (indent or 0)):
        current().spend_all(value)
    return json.dumps(
        value,
        ensure_ascii=bool(ensure_ascii),
        indent=indent,
        separators=separators,
        sort_keys=bool(sort_keys),
    )


def _join(value: Any, separator: Any = "", attribute: Any = None) -> str:
    items = settled(value)
    if attribute is not None:
        raise TooMuch(
            say(
                "这里的 join 不带 attribute，请写成 map(attribute=…) | join",
                "join takes no attribute here: use map(attribute=…) | join",
            )
        )
    texts = [printed(item) for item in items]
    between = printed(separator)
    current().spend(len(between) * len(texts))
    return between.join(texts)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    form = printed(value)
    check_percent(form, (*args, *kwargs.values()))
    return form % (kwargs or args)


# ---------------------------------------------------------------- the lists


def _number(kind: str) -> Callable[..., Any]:
    convert = DEFAULT_FILTERS[kind]

    @wraps(convert)
    def converted(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
            raise too_long_a_number()
        return convert(value, *args, **kwargs)

    return converted


def _metered(function: Callable[..., Any], weigh: Callable[[Any], None]) -> Callable[..., Any]:
    own = 1 if hasattr(function, "jinja_pass_arg") else 0  # the environment or the context comes first

    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        given = [*args[:own], *(args[own:] if weigh is _nothing else map(settled, args[own:]))]
        for value in (*given[own:], *kwargs.values()):
            weigh(value)
        return spent(function(*given, **kwargs))

    return metered


def _nothing(value: object) -> None:
    current().spend(1)


def _length(value: object) -> None:
    current().spend_length(value)


def _everything(value: object) -> None:
    current().spend_all(value)


def _compared(value: object) -> None:
    before = current().spent
    current().spend_all(value)
    current().spend((_COMPARED - 1) * (current().spent - before))


def _text(value: object) -> None:
    current().spend_all(value, to_print=True)


def allowed_filters() -> dict[str, Callable[..., Any]]:
    """Return the filters by name, the compiler's own among them."""
    own: dict[str, Callable[..., Any]] = {
        "replace": _replace,
        "indent": _indent,
        "tojson": _tojson,
        "format": _format,
        "join": _join,
    }
    own |= {name: _number(name) for name in ("abs", "float", "int")}
    theirs: Mapping[str, Any] = DEFAULT_FILTERS
    return {
        **{name: _metered(theirs[name], _nothing) for name in _LIGHT_FILTERS},
        **{name: _metered(theirs[name], _length) for name in _COPYING_FILTERS},
        **{name: _metered(theirs[name], _text) for name in _THOROUGH_FILTERS},
        **{name: _metered(theirs[name], _compared) for name in _SORTING_FILTERS},
        **{name: _metered(function, _text) for name, function in own.items()},
        **OPERATORS,
    }


def allowed_tests() -> dict[str, Callable[..., Any]]:
    """Return the tests by name."""
    theirs: Mapping[str, Any] = DEFAULT_TESTS
    return {
        **{name: _metered(theirs[name], _nothing) for name in _LIGHT_TESTS},
        **{name: _metered(theirs[name], _everything) for name in _THOROUGH_TESTS},
    }
