"""Regular expressions from files of unknown origin, matched in time that grows with their length alone.

Python's `re` tries one way after the other, and `(a+)+$` has it try for ever. Here all ways are followed at
once (Thompson, 1968). Known are literals, `.`, classes, `\\d \\w \\s`, groups, `|`, `* + ? {m,n}`, `^` and `$`:
what names of modules are chosen by. Lookarounds and references back are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

#: Characters of a pattern, steps of its program, and groups within groups.
MOST_CHARACTERS, _MOST_STEPS, _DEEPEST = 256, 256, 20
_CLASSES = "dwsDWS"
_REPEAT = re.compile(r"\{(\d{1,3})(,(\d{0,3}))?\}")
_GROUP_START = re.compile(r"\((?:\?:|\?P<\w{1,40}>|(?!\?))")

_Test = Callable[[str], object]


class PatternError(ValueError):
    """A pattern that is too long, malformed, or asks for more than is known here."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One step: a character that `test` accepts, a place (`^`, `$`), a fork to `next`, or the end (no `next`)."""

    test: _Test | None = None
    place: str = ""
    next: tuple[int, ...] = ()


class LinearPattern:
    """A compiled pattern. Raises PatternError when made of one that is not supported."""

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise PatternError(f"{len(text)} > {MOST_CHARACTERS}")
        self._text, self._at = text, 0
        self._steps: list[_Step] = []
        self._alternatives(0)
        if self._at < len(text):
            self._refuse()
        self._steps.append(_Step())

    def fullmatch(self, name: str) -> bool:
        """Say whether the pattern matches the whole of `name`, in steps of the pattern times characters."""
        states = self._reached({0}, 0, len(name))
        for place, character in enumerate(name):
            after = {
                number + 1
                for number in states
                if (test := self._steps[number].test) is not None and test(character)
            }
            if not after:
                return False
            states = self._reached(after, place + 1, len(name))
        return len(self._steps) - 1 in states

    def _reached(self, states: set[int], place: int, length: int) -> set[int]:
        """Return the states reached from `states` without a character."""
        found, waiting = set(states), list(states)
        while waiting:
            step = self._steps[waiting.pop()]
            blocked = (step.place == "^" and place != 0) or (step.place == "$" and place != length)
            for number in () if blocked else step.next:
                if number not in found:
                    found.add(number)
                    waiting.append(number)
        return found

    # ------------------------------------------------------------ compiling

    def _alternatives(self, depth: int) -> None:
        if depth > _DEEPEST:
            self._refuse()
        start = len(self._steps)
        self._sequence(depth)
        ends: list[int] = []
        while self._at < len(self._text) and self._text[self._at] == "|":
            self._at += 1
            first = self._steps[start:]
            self._steps[start:] = []
            self._add(_Step(next=(start + 1, start + 2 + len(first))))
            self._place(first, start + 1, start)
            ends = [end + 1 for end in ends]
            ends.append(len(self._steps))
            self._add(_Step())  # a jump behind all alternatives, filled in below
            self._sequence(depth)
        for end in ends:
            self._steps[end] = _Step(next=(len(self._steps),))

    def _sequence(self, depth: int) -> None:
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            start = len(self._steps)
            self._atom(depth)
            self._repeated(start)

    def _atom(self, depth: int) -> None:
        character = self._text[self._at]
        if character == "(":
            opened = _GROUP_START.match(self._text, self._at)
            if opened is None:
                self._refuse()
            self._at = opened.end()
            self._alternatives(depth + 1)
            if self._at >= len(self._text):
                self._refuse()
            self._at += 1
        elif character in "^$":
            self._at += 1
            self._add(_Step(place=character, next=(len(self._steps) + 1,)))
        elif character in "*+?{":
            self._refuse()
        else:
            self._add(_Step(test=self._one_character()))

    def _one_character(self) -> _Test:
        start = self._at
        character = self._text[start]
        self._at += 1
        if character == "\\":
            self._escaped()
        elif character == "[":
            self._class()
        elif character != ".":
            return character.__eq__
        try:
            return re.compile(self._text[start : self._at]).fullmatch
        except re.error:
            self._refuse()

    def _escaped(self) -> None:
        """Pass over what follows a backslash: a class of characters, or a sign that is meant as it stands."""
        escaped = self._text[self._at : self._at + 1]
        if not escaped or (escaped.isalnum() and escaped not in _CLASSES):
            self._refuse()
        self._at += 1

    def _class(self) -> None:
        """Pass over the rest of a class in brackets; `]` may be first in it."""
        self._at += self._text[self._at : self._at + 1] == "^"
        first = self._at
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == "]" and self._at - 1 > first:
                return
            if character == "[":
                break
            if character == "\\":
                self._escaped()
        self._refuse()

    def _repeated(self, start: int) -> None:
        """Apply the quantifier at the current place, if there is one, to the steps from `start` on."""
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return
        body = self._steps[start:]
        if any(step.place for step in body):  # a place is there or not, once
            self._refuse()
        self._steps[start:] = []
        for _ in range(least):
            self._place(body, len(self._steps), start)
        if most is None:
            here = len(self._steps)
            self._add(_Step(next=(here + 1, here + 2 + len(body))))
            self._place(body, here + 1, start)
            self._add(_Step(next=(here,)))
            return
        skips = []
        for _ in range(most - least):
            skips.append(len(self._steps))
            self._add(_Step())
            self._place(body, len(self._steps), start)
        for skip in skips:
            self._steps[skip] = _Step(next=(skip + 1, len(self._steps)))

    def _quantifier(self) -> tuple[int, int | None]:
        """Read a quantifier; lazy ones match the same names. Return how often at least, and at most."""
        sign = self._text[self._at : self._at + 1]
        found: tuple[int, int | None] = (1, 1)
        if sign in ("*", "+", "?"):
            found = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
            self._at += 1
        elif sign == "{":
            stated = _REPEAT.match(self._text, self._at)
            if stated is None:
                self._refuse()
            least = int(stated[1])
            found = (least, least if stated[2] is None else int(stated[3]) if stated[3] else None)
            if found[1] is not None and found[1] < least:
                self._refuse()
            self._at = stated.end()
        else:
            return found
        following = self._text[self._at : self._at + 1]
        if following == "?":
            self._at += 1
        elif following in ("*", "+", "{"):
            self._refuse()
        return found

    def _place(self, steps: list[_Step], at: int, was_at: int) -> None:
        """Add a copy of `steps`, which stood at `was_at`, so that it begins at `at`."""
        for step in steps:
            self._add(_Step(step.test, step.place, tuple(number + at - was_at for number in step.next)))

    def _add(self, step: _Step) -> None:
        if len(self._steps) >= _MOST_STEPS:
            self._refuse()
        self._steps.append(step)

    def _refuse(self) -> NoReturn:
        raise PatternError(f"{self._text[:60]!r}: {self._at + 1}")
