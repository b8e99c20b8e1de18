"""The licence of what is exported: what the folders' own cards state, else what is known of published weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medchat.plugin_kit import KnownWeights, ResolvedModel, read_regular, sanitize_line

_MOST_BYTES = 4 << 20
_STATED = re.compile(r"(?m)^license(?:_name)?:\s*(.+?)\s*$")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
#: What a card says that names no licence.
_UNNAMED = {"other", "unknown"}


@dataclass(frozen=True, slots=True)
class Part:
    """A base or an adapter by its own name, and its licence, "" if nobody states one."""

    name: str
    licence: str
    is_adapter: bool


def parts_of(resolved: ResolvedModel) -> tuple[Part, ...]:
    """Return the base and the adapters, each with the licence that its card or the list of known weights states."""
    known = resolved.backbone.known_weights
    folders = [(resolved.options.model, False), *((folder, True) for folder in resolved.options.adapters)]
    return tuple(
        Part(folder.resolve().name, licence_of(folder, known), is_adapter) for folder, is_adapter in folders
    )


def joined_licence(parts: Sequence[Part]) -> str:
    """Return the licences in one line, each once, "" where one of the parts states none."""
    if not all(part.licence for part in parts):
        return ""
    return " AND ".join(dict.fromkeys(part.licence for part in parts))


def licence_of(folder: Path, known: Sequence[KnownWeights]) -> str:
    """Return the licence that the folder's card states, else that of the known weights of its name, else ""."""
    stated = [name for name in _stated(folder) if name.lower() not in _UNNAMED]
    if stated:
        return stated[-1]
    name = folder.resolve().name
    return next(
        (
            weights.licence
            for weights in known
            if name in (weights.name, weights.repository.rpartition("/")[2])
        ),
        "",
    )


def _stated(folder: Path) -> Iterator[str]:
    try:
        text = read_regular(folder / "README.md", _MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return
    front = _FRONT_MATTER.match(text)
    for value in _STATED.findall(front[1]) if front else ():
        yield sanitize_line(value.strip("'\""), 80)
