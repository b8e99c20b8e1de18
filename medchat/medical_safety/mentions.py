"""Finding the lexicon's words in a text, and the compounds they make: one pass, longest match."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from medchat.medical_safety.folding import FoldedText
from medchat.medical_safety.lexicon_files import POLAR, Compound, Lexicon, Sequence
from medchat.medical_safety.measures import measures


class Found(NamedTuple):
    """Words at text[start:end] that belong together; `negated` where the text says that it is not so."""

    start: int
    end: int
    name: str
    negated: bool = False


#: Makes one from all four values, in half the time: a long text has thousands.
_made: Callable[[tuple[int, int, str, bool]], Found] = partial(tuple.__new__, Found)


class Mentions:
    """What was found, by class, in the order of the text."""

    def __init__(self, found: Iterable[Found]) -> None:
        """Take what was found, in the order of the text."""
        self._found: defaultdict[str, list[Found]] = defaultdict(list)
        for each in found:
            self._found[each.name].append(each)
        self._starts: dict[str, list[int]] = {}
        self._merged: dict[tuple[str, ...], list[Found]] = {}

    def add(self, name: str, found: list[Found]) -> None:
        """Add a class of compounds, in the order of the text."""
        self._found[name].extend(found)
        self._merged.clear()

    def of(self, names: tuple[str, ...]) -> list[Found]:
        """Return everything of these classes, in the order of the text."""
        if len(names) == 1:
            return self._found.get(names[0], [])
        merged = self._merged.get(names)
        if merged is None:
            merged = [each for name in names for each in self._found.get(name, ())]
            merged.sort(key=_start)
            self._merged[names] = merged
        return merged

    def has(self, names: tuple[str, ...]) -> bool:
        """Whether anything of these classes was found."""
        return not self._found.keys().isdisjoint(names)

    def names(self) -> list[str]:
        """Return the classes of which something was found."""
        return list(self._found)

    def first_from(self, names: tuple[str, ...], start: int, stop: int) -> Found | None:
        """Return the first of these classes that begins in [start, stop], None if there is none."""
        best: Found | None = None
        for name in names:
            all_of_it = self._found.get(name)
            if not all_of_it:
                continue
            starts = self._starts.get(name)
            if starts is None or len(starts) != len(all_of_it):
                starts = self._starts[name] = [each.start for each in all_of_it]
            index = bisect_left(starts, start)
            if index < len(starts) and starts[index] <= stop and (best is None or starts[index] < best.start):
                best = all_of_it[index]
        return best

    def near(self, names: tuple[str, ...], to: Found, reach: int) -> Iterator[Found]:
        """Yield what of these classes holds and begins no more than `reach` before or behind `to`, as it stands."""
        start, stop = to.start - reach, to.end + reach
        while (found := self.first_from(names, start, stop)) is not None:
            if not found.negated and found is not to:
                yield found
            start = found.start + 1

    def nearest(self, names: tuple[str, ...], to: Found, reach: int) -> Found | None:
        """Return the first that is `near`, None if there is none."""
        return next(self.near(names, to, reach), None)


def _start(found: Found) -> int:
    return found.start


#: How many Latin letters say as much as a Chinese character.
_LATIN = 4
#: What joins the things that one negation takes back together.
_JOINED = re.compile(r"[、和或及与/]| or |, | and |,or ")
#: How far a negation, a prevention or a figure of speech reaches ahead.
_REACH = {"not": 2, "not.wide": 8, "prevent": 4, "figure": 2}
#: How far behind it a thing may be said to be gone.
_GONE = 5


def with_polarity(found: list[Found], folded: FoldedText) -> list[Found]:
    """Return what was found, each marked as negated where a word before or behind it says so."""
    gone = [each.start for each in found if each.name == "gone"]
    if not gone and not any(each.name in _REACH for each in found):
        return found
    marked: list[Found] = []
    negation: Found | None = None
    before: Found | None = None
    reach = -1  # to where the negation reaches: nearly everything begins behind it
    for each in found:
        name = each.name
        if name in _REACH:
            negation = each
            reach = each.end + _REACH[name]
        elif name == "but":
            reach = -1
        else:
            negated = each.start <= reach and negation is not None and _negates(negation, each, folded)
            polar = name.startswith(POLAR)
            if polar:
                joined = before is not None and before.negated and _joined(before, each, folded)
                if not (negated or joined) and gone:
                    index = bisect_left(gone, each.end)
                    joined = index < len(gone) and _close(each.end, gone[index], _GONE, folded)
                negated = negated or joined
            if negated:
                each = Found(each.start, each.end, name, negated=True)
            if polar:
                before = each
        marked.append(each)
    return marked


def _negates(negation: Found, each: Found, folded: FoldedText) -> bool:
    return _close(negation.end, each.start, _REACH[negation.name], folded)


def _close(end: int, start: int, reach: int, folded: FoldedText) -> bool:
    return 0 <= start - end <= reach and not folded.clause_end_between(end, start)


def _joined(before: Found, each: Found, folded: FoldedText) -> bool:
    return _JOINED.fullmatch(folded.text, before.end, each.start) is not None


def find_mentions(folded: FoldedText, lexicon: Lexicon) -> Mentions:
    """Return every word of the lexicon in the text, every measure, and every compound of them."""
    found = _words(folded.text, lexicon)
    if measured := [Found(start, end, name) for start, end, name in measures(folded.text)]:
        found = sorted([*found, *measured], key=_start)
    mentions = Mentions(with_polarity(found, folded))
    for compound in lexicon.compounds:
        if made := _compounds(mentions, compound, folded):
            mentions.add(compound.name, made)
    return mentions


#: Inside a longer word, those of these classes still count.
_KEPT_INSIDE = (
    *POLAR,
    "part.",
    "sense.",
    "agent.",
    "state.",
    "source.",
    "cause.",
    "age.",
    "amount.",
    "word.",
)


def _words(text: str, lexicon: Lexicon) -> list[Found]:
    """Return the words. Inside a longer one stays only what is of another class and has two characters or more."""
    found: list[Found] = []
    covered, plain = 0, 0
    by_class: dict[str, int] = {}
    for start, ends in lexicon.finder.words(text):
        for end, names in reversed(ends):
            inside = end <= covered
            if not inside:
                covered = end
            for name in names:
                if inside and (
                    end <= plain
                    or end <= by_class.get(name, 0)
                    or end - start == 1
                    or not name.startswith(_KEPT_INSIDE)
                ):
                    continue
                by_class[name] = end
                if name == "plain":
                    plain = end
                found.append(_made((start, end, name, False)))
    return found


def _compounds(mentions: Mentions, compound: Compound, folded: FoldedText) -> list[Found]:
    found: list[Found] = []
    # Of nearly every sequence a part is missing: a generator for each would take most of the time.
    for sequence in compound.sequences:
        for names, _ in sequence.steps:
            if not mentions.has(names):
                break
        else:
            found.extend(
                made
                for first in mentions.of(sequence.steps[0][0])
                if (made := _follow(mentions, sequence, first, compound.name, folded))
            )
    found.sort(key=_start)
    return found


def _follow(
    mentions: Mentions, sequence: Sequence, first: Found, name: str, folded: FoldedText
) -> Found | None:
    """Return the compound that begins with `first`, None if a step is missing."""
    last, negated = first, first.negated
    for names, gap in sequence.steps[1:]:
        # A word of Latin letters takes as much room as several characters of Chinese.
        reach = gap * _LATIN if folded.text[last.end - 1] < "\x80" else gap
        step = mentions.first_from(names, last.end, last.end + reach)
        if step is None or folded.sentence_end_between(last.end, step.start):
            return None
        last, negated = step, negated or step.negated
    return Found(first.start, last.end, name, negated)
