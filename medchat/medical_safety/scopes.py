"""What the words around a mention make of it: who it is about, when it was, and whether it is so at all.

A scope belongs to a place in the text, never to the whole text. Whoever is named last holds until
somebody else is; a story, a lesson or an examination holds until the writer or kin come up in a later clause;
"if" and a time hold to the end of their sentence.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from medchat.medical_safety.folding import FoldedText
from medchat.medical_safety.mentions import Found, Mentions

#: Classes that say whose state it is. Those of the second line end a story or a lesson.
_PERSONS = ("who.self", "who.kin", "who.other")
_NEAR = ("who.self", "who.kin")
#: Classes that make what follows no report of a state: a case, a story, a report in the press, a lesson.
_GENRES = ("genre.case", "genre.fiction", "genre.news", "genre.study")
#: Behind a mention: a question about the thing itself.
_ASKED_REACH = 6
_PAST_REACH = 30
_PREDICATE = ("time.now", "time.sudden", "time.duration", "help")


@dataclass(frozen=True, slots=True)
class Scope:
    """The scopes at a mention. `person` is "" where nobody is named; `genre` is "" for plain words."""

    person: str = ""
    genre: str = ""
    conditional: bool = False
    past: bool = False
    asked: bool = False
    predicate: bool = False

    def words(self) -> tuple[str, ...]:
        """Return the scopes that are there, by name."""
        named = [self.person, self.genre]
        named += [name for name in ("conditional", "past", "asked", "predicate") if getattr(self, name)]
        return tuple(name for name in named if name)


class Scopes:
    """The scopes of one text."""

    def __init__(self, folded: FoldedText, mentions: Mentions) -> None:
        """Go through what sets scopes, once."""
        self._folded = folded
        self._mentions = mentions
        self._at: list[int] = []
        self._states: list[tuple[str, str]] = []
        self._walk()
        self._conditions = [each.start for each in mentions.of(("if",))]
        self._times = mentions.of(("time.past", "time.now"))
        self._time_starts = [each.start for each in self._times]
        exams = mentions.of(("exam",))
        self._last_exam = exams[-1].start if exams else -1

    def _walk(self) -> None:
        person, genre, genre_at = "", "", -1
        for event in self._mentions.of((*_PERSONS, *_GENRES)):
            if event.name in _GENRES:
                if event.name == "genre.case" and person and self._same_clause(self._at[-1], event.start):
                    continue
                genre, genre_at = event.name, event.end
                if event.name == "genre.case":
                    person = ""
            elif not genre:
                person = event.name
            elif event.name in _NEAR and not self._same_clause(genre_at, event.start):
                person, genre = event.name, ""
            else:
                continue
            self._at.append(event.start)
            self._states.append((person, genre))

    def _same_clause(self, start: int, end: int) -> bool:
        return not self._folded.clause_end_between(start, end)

    def at(self, found: Found) -> Scope:
        """Return the scopes of a mention."""
        index = bisect_right(self._at, found.start) - 1
        person, genre = self._states[index] if index >= 0 else ("", "")
        if not person and not genre:
            person, genre = self._named_inside(found, index)
        if not genre and not person and found.start < self._last_exam:
            genre = "exam"
        return Scope(
            person,
            genre,
            self._conditional(found),
            self._past(found),
            self._asked(found),
            self._predicate(found),
        )

    def _named_inside(self, found: Found, index: int) -> tuple[str, str]:
        """Return the scopes that begin within the mention: "晕倒在我家门口"."""
        if index + 1 < len(self._at) and self._at[index + 1] <= found.end + 2:
            return self._states[index + 1]
        return "", ""

    def _conditional(self, found: Found) -> bool:
        index = bisect_right(self._conditions, found.start) - 1
        if index < 0:
            return False
        start = self._conditions[index]
        now = self._mentions.first_from(("time.now",), start, found.start)
        return now is None and not self._folded.sentence_end_between(start, found.start)

    def _past(self, found: Found) -> bool:
        index = bisect_left(self._time_starts, found.end + 2) - 1
        if index < 0 or self._times[index].name != "time.past":
            return False
        time = self._times[index]
        return found.start - time.end <= _PAST_REACH and not self._folded.sentence_end_between(
            time.start, found.start
        )

    def _asked(self, found: Found) -> bool:
        asked = self._mentions.first_from(("asked",), found.end, found.end + _ASKED_REACH)
        return asked is not None and self._same_clause(found.end, asked.start)

    def _predicate(self, found: Found) -> bool:
        text = self._folded.text
        if "了" in text[found.start : found.end + 3]:
            return True
        near = self._mentions.first_from(_PREDICATE, max(0, found.start - 15), found.end + 12)
        return near is not None and not self._folded.sentence_end_between(
            min(near.end, found.end), max(near.start, found.start)
        )


def silenced_by(scope: Scope, strength: str) -> str:
    """Return the name of the scope that makes a mention no emergency, "" where none does.

    `strength` is that of the rule (`FlagRule`).
    """
    if scope.genre:
        return scope.genre
    if strength == "intent":
        return "asked" if scope.asked and not scope.person else ""
    if scope.conditional:
        return "conditional"
    if scope.past:
        return "past"
    if scope.person:
        return "" if strength != "illness" or scope.predicate else "no predicate"
    if scope.asked:
        return "asked"
    return "" if strength == "sign" or scope.predicate else "nobody named"
