"""Whether what a plugin gives is what the interface says: held against the type hints of `medchat.api` themselves.

Each field of its dataclasses is looked at, however deep; what is found wrong is named with its place, such as
`inspect: ModelCard.context_length: expected int, got NoneType`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from medchat.language import say


class ContractError(Exception):
    """The plugin itself did not raise, but something about it is not as it must be."""


def mismatch(expected: str, value: object, place: str = "") -> ContractError:
    """Return the error for `value` found where `expected` was: shown after `place`, both by their types."""
    got = type(value).__name__
    text = say(f"应当是 {expected}，却得到 {got}", f"expected {expected}, got {got}")
    return ContractError(f"{place}: {text}" if place else text)


def require(value: Any, hint: Any, place: str = "") -> Any:
    """Return `value`, which must be of the type that `hint` writes. Raises ContractError.

    A list does where a tuple is written, and an int for a float; True is no number.
    """
    if hint is Any or hint is object:
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        _require_one(value, get_args(hint), place)
    elif origin is Literal:
        if value not in get_args(hint):
            raise mismatch("|".join(map(repr, get_args(hint))), value, place)
    elif origin is not None:
        _require_members(value, origin, get_args(hint), place)
    else:
        _require_plain(value, hint, place)
    return value


@cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Return the type hints of the public attributes of `kind`, ClassVar taken off."""
    found = get_type_hints(kind)
    return {
        name: get_args(hint)[0] if get_origin(hint) is ClassVar else hint
        for name, hint in found.items()
        if not name.startswith("_")
    }


@cache
def result_of(function: Callable[..., Any]) -> Any:
    """Return the hint of what `function`, a method of the interface, returns."""
    return get_type_hints(function)["return"]


def _require_one(value: Any, hints: Sequence[Any], place: str) -> None:
    named = [hint for hint in hints if isinstance(hint, type) and isinstance(value, hint)]
    for hint in named or hints:
        try:
            require(value, hint, place)
        except ContractError:
            if named:
                raise
        else:
            return
    raise mismatch(" | ".join(_written(hint) for hint in hints), value, place)


def _require_members(value: Any, origin: Any, hints: Sequence[Any], place: str) -> None:
    if origin in (tuple, list):
        if not isinstance(value, (tuple, list)):
            raise mismatch(origin.__name__, value, place)
        pairs: Any = ((member, hints[0]) for member in value)
    elif origin is Mapping:
        if not isinstance(value, Mapping):
            raise mismatch("Mapping", value, place)
        pairs = [pair for item in value.items() for pair in zip(item, hints, strict=True)]
    elif origin in (Sequence, frozenset):
        if isinstance(value, str) or not isinstance(value, origin):
            raise mismatch(origin.__name__, value, place)
        pairs = ((member, hints[0]) for member in value)
    else:  # a Callable: what it takes and gives shows when it is called
        if not callable(value):
            raise mismatch("Callable", value, place)
        return
    for member, hint in pairs:
        require(member, hint, place)


def _require_plain(value: Any, kind: type, place: str) -> None:
    if kind in (int, float):
        accepted: Any = (int, float) if kind is float else int
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise mismatch(kind.__name__, value, place)
        return
    if not isinstance(value, kind):
        raise mismatch(kind.__name__, value, place)
    if isinstance(value, str):
        _require_writable(value, place)
    if is_dataclass(kind):
        written = hints_of(kind)
        for field in fields(kind):
            inner = f"{kind.__name__}.{field.name}"
            require(getattr(value, field.name), written[field.name], f"{place}: {inner}" if place else inner)


def _require_writable(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ContractError(f"{place}: {error}" if place else str(error)) from None


def _written(hint: Any) -> str:
    return "None" if hint is type(None) else str(getattr(hint, "__name__", hint))
