"""Which layers of a model a LoRA's settings choose, worked out here and handed to peft as plain names.

peft takes several settings for regular expressions and matches each with every module; a file of unknown
origin could keep it busy for ever. No torch here: the model is a list of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from medchat.checkpoints.linear_pattern import LinearPattern

#: peft's word for all linears but the head.
ALL_LINEAR = "all-linear"
#: Entries of a list or table: a model of a hundred layers has some 700 linears.
MOST_ENTRIES = 10_000
#: Keys of a table that are expressions; the others are plain names and found by looking them up.
_MOST_EXPRESSIONS = 32
_PLAIN = re.compile(r"[\w.-]+")
_LAYER = re.compile(r"[^.]*\.(\d{1,6})\.")
_TABLES = ("rank_pattern", "alpha_pattern")


def wrong_choices(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings on layers whose value no adapter of peft could have, or that are not supported."""
    wrong = [key for key in ("target_modules", "exclude_modules") if not _names_or_pattern(settings.get(key))]
    layers, words = settings.get("layers_to_transform"), settings.get("layers_pattern")
    listed = layers if isinstance(layers, list) else [] if layers is None else [layers]
    if len(listed) > MOST_ENTRIES or not all(
        type(number) is int and 0 <= number < 10**6 for number in listed
    ):
        wrong.append("layers_to_transform")
    listed = words if isinstance(words, list) else [] if words is None else [words]
    if len(listed) > MOST_ENTRIES or not all(
        isinstance(word, str) and _PLAIN.fullmatch(word) for word in listed
    ):
        wrong.append("layers_pattern")
    return wrong + [key for key in _TABLES if not _is_table(settings.get(key, {}), key)]


def chosen_layers(settings: Mapping[str, Any], linears: Sequence[str], head: str = "") -> list[str]:
    """Return which of the model's `linears` the settings choose. `head` is the output head, if it is one."""
    excluded = settings.get("exclude_modules")
    targets = settings["target_modules"]
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        found = [name for name in linears if name != head]
    else:
        matched = _matched(targets, linears)
        found = [name for name in linears if name in matched]
    if not isinstance(targets, str):
        exact = set(targets)
        found = [name for name in found if name in exact or _layer_is_meant(settings, name)]
    out = _matched(excluded, linears) if excluded else frozenset()
    return [name for name in found if name not in out]


def idle_targets(settings: Mapping[str, Any], linears: Sequence[str]) -> list[str]:
    """Return the entries of `target_modules` that name none of the model's `linears`."""
    targets = settings["target_modules"]
    if isinstance(targets, str):
        return [] if targets.lower() == ALL_LINEAR or _matched(targets, linears) else [targets]
    known = {tail for name in linears for tail in _tails(name)}
    return [target for target in targets if target not in known]


def by_layer(table: Mapping[str, Any], layers: Iterable[str]) -> dict[str, Any]:
    """Return the values of a `rank_pattern` or `alpha_pattern` by layer; of several that match, the first."""
    order = {key: number for number, key in enumerate(table)}
    expressions = [key for key in table if not _PLAIN.fullmatch(key)]
    compiled = {key: LinearPattern(rf"(.*\.)?({key})") for key in expressions}
    found = {}
    for layer in layers:
        keys = [tail for tail in _tails(layer) if tail in table]
        keys += [key for key, pattern in compiled.items() if pattern.fullmatch(layer)]
        if keys:
            found[layer] = table[min(keys, key=order.__getitem__)]
    return found


def _tails(name: str) -> Iterator[str]:
    """Yield the name and what is left of it behind each dot: by any of them a list may mean it."""
    yield name
    while name:
        _, _, name = name.partition(".")
        if name:
            yield name


def _matched(rule: Sequence[str] | str, linears: Sequence[str]) -> frozenset[str]:
    if isinstance(rule, str):
        pattern = LinearPattern(rule)
        return frozenset(name for name in linears if pattern.fullmatch(name))
    wanted = set(rule)
    return frozenset(name for name in linears if not wanted.isdisjoint(_tails(name)))


def _layer_is_meant(settings: Mapping[str, Any], name: str) -> bool:
    layers = settings.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    words = settings.get("layers_pattern") or []
    words = [words] if isinstance(words, str) else words
    if words:
        numbers = (re.search(rf"(?:^|\.){re.escape(word)}\.(\d{{1,6}})\.", name) for word in words)
        number = next((int(found[1]) for found in numbers if found), None)
    else:
        found = _LAYER.search(name)
        number = int(found[1]) if found else None
    return number is not None and number in (layers if isinstance(layers, list) else [layers])


def _names_or_pattern(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return _is_pattern(value)
    return (
        isinstance(value, list) and len(value) <= MOST_ENTRIES and all(isinstance(one, str) for one in value)
    )


def _is_table(value: Any, key: str) -> bool:
    if not isinstance(value, dict) or len(value) > MOST_ENTRIES:
        return False
    expressions = [name for name in value if not _PLAIN.fullmatch(name)]
    if len(expressions) > _MOST_EXPRESSIONS or not all(map(_is_pattern, expressions)):
        return False
    return all(is_rank(one) if key == "rank_pattern" else is_scale(one) for one in value.values())


def is_rank(value: Any) -> bool:
    """Say whether a value read from a file can be the rank of a LoRA."""
    return type(value) is int and 0 < value < 2**16


def is_scale(value: Any) -> bool:
    """Say whether a value read from a file can be the alpha of a LoRA: a finite number of any sensible size."""
    return not isinstance(value, bool) and isinstance(value, int | float) and -(2**20) < value < 2**20


def _is_pattern(text: str) -> bool:
    try:
        LinearPattern(rf"(.*\.)?({text})")
    except ValueError:
        return False
    return True
