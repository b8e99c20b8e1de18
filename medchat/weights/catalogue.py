"""The table of published weights: what every backbone plugin states, looked up by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from medchat.api import Backbone, KnownWeights


@dataclass(frozen=True, slots=True)
class Entry:
    """Published weights and the backbone that loads them."""

    known: KnownWeights
    backbone: str


class Catalogue:
    """The published weights of all backbones that load, in their order."""

    def __init__(self, backbones: Iterable[Backbone]) -> None:
        self._entries = tuple(
            Entry(known, backbone.name) for backbone in backbones for known in backbone.known_weights
        )

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def find(self, name: str) -> Entry | None:
        """Return the entry of that name (in any case), or the first of that OWNER/NAME on the hub."""
        wanted = name.casefold()
        for entry in self._entries:
            if entry.known.name.casefold() == wanted:
                return entry
        for entry in self._entries:
            if "/" in wanted and entry.known.repository.casefold() == wanted:
                return entry
        return None

    def near(self, name: str) -> list[str]:
        """Return up to three names that may have been meant."""
        names = {entry.known.name.casefold(): entry.known.name for entry in self._entries}
        close = difflib.get_close_matches(name.casefold(), list(names), n=3, cutoff=0.5)
        return [names[form] for form in close]

    def at_revision(self, known: KnownWeights, revision: str) -> KnownWeights | None:
        """Return the entry for that revision of the repository that `known` is in, or None."""
        for entry in self._entries:
            other = entry.known
            if other.repository == known.repository and other.revision == revision:
                return other
        return None

    def adapters_for(self, base: str) -> list[KnownWeights]:
        """Return the adapters that were trained on the base of that name."""
        return [entry.known for entry in self._entries if base in entry.known.fits]
