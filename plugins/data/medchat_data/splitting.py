"""Dividing records into parts so that no source stands in two of them. Knows no files.

The sources of a record that was built are those in its provenance. Of any other it is what its id and its first
question lead to: records that share one of the two are of one source.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medchat.plugin_kit import QuestionRecord
from medchat_data.verifying import normalised

#: Where a record goes whose sources are in several parts: into none.
LEFT_OUT = "left-out"


def sources_of(records: Iterable[tuple[Mapping[str, Any], QuestionRecord]]) -> list[frozenset[str]]:
    """Return the sources of each record, given as its JSON object and as what was read of it."""
    first: dict[
        str, str
    ] = {}  # what leads to the same source as a key, and leads to itself where it is the first

    def leader(key: str) -> str:
        while first.setdefault(key, key) != key:
            key = first[key]
        return key

    found: list[frozenset[str] | str] = []
    for value, asked in records:
        if stated := _stated_sources(value):
            found.append(stated)
            continue
        begin = (asked.turns[0].question if asked.turns else "") or asked.last
        key = f"question {normalised(begin)}"
        if asked.id is not None:
            first[leader(key)] = leader(f"id {asked.id}")
        found.append(key)
    return [frozenset({leader(one)}) if isinstance(one, str) else one for one in found]


def divided(sources: Sequence[frozenset[str]], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the part of each record, `LEFT_OUT` for one whose sources are in several.

    `shares` are the sizes of the parts, in any unit. The same records, shares and seed give the same parts. Raises
    ValueError where there are fewer sources than parts.
    """
    sizes = Counter(source for one in sources for source in sorted(one))
    if len(sizes) < len(shares):
        raise ValueError(f"{len(sizes)} sources for {len(shares)} parts")
    names = list(sizes)
    random.Random(seed).shuffle(names)
    filled = dict.fromkeys(shares, 0)
    part_of: dict[str, str] = {}
    for source in names:
        part = min(shares, key=lambda name: filled[name] / shares[name])  # the emptiest for its share
        part_of[source] = part
        filled[part] += sizes[source]
    return [_one_of({part_of[source] for source in one}) for one in sources]


def _one_of(parts: set[str]) -> str:
    return parts.pop() if len(parts) == 1 else LEFT_OUT


def _stated_sources(value: Mapping[str, Any]) -> frozenset[str]:
    """Return the digests of the sources in a record's provenance, nothing where it states none."""
    provenance = value.get("provenance")
    stated = provenance.get("sources") if isinstance(provenance, dict) else None
    digests = (
        [one.get("sha256") for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
    )
    return frozenset(digest for digest in digests if isinstance(digest, str) and digest)
