"""Which fields the records of a file were read from and which nothing was made of, counted over the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from medchat.datafiles.fields import use_name
from medchat.datafiles.record import QuestionRecord
from medchat.language import say
from medchat.sanitize import sanitize_line

#: How many different names are counted one by one; data whose very names are data would have no end of them.
MOST_NAMES = 200
OTHERS = "…"
#: How many names are shown.
_SHOWN = 12


@dataclass
class FieldTally:
    """`used` counts records by use and field, `unused` by field; names over `MOST_NAMES` count as `OTHERS`."""

    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    def add(self, asked: QuestionRecord) -> None:
        """Count one record."""
        for use, name in asked.used:
            known = (use, name) in self.used or len(self.used) < MOST_NAMES
            self.used[(use, name) if known else (use, OTHERS)] += 1
        for name in asked.unused:
            self.unused[name if name in self.unused or len(self.unused) < MOST_NAMES else OTHERS] += 1

    def by_use(self) -> dict[str, dict[str, int]]:
        """Return the counts of `used` as use -> field -> records."""
        found: dict[str, dict[str, int]] = {}
        for (use, name), count in self.used.items():
            found.setdefault(use, {})[name] = count
        return found

    def lines(self) -> Iterator[str]:
        """Yield what is said of it: which fields mean what, and which are unused."""
        if self.used:
            read = [f"{_shown(name)} → {use_name(use)}" for use, name in self.used]
            yield say("字段：", "fields: ") + _listed(read)
        if self.unused:
            yield unused_line(self.unused)


def unused_line(unused: Mapping[str, int]) -> str:
    """Return the message naming the fields that nothing was made of, and in how many records each holds something."""
    names = [f"{_shown(name)} × {count}" for name, count in unused.items()]
    return say("未使用的字段：", "unused fields: ") + _listed(names)


def _shown(name: str) -> str:
    return sanitize_line(name, 60)


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    listed = say("、", ", ").join(names[:_SHOWN])
    return listed + (say(f" 等 {len(names)} 个", f" and {more} more") if more > 0 else "")
