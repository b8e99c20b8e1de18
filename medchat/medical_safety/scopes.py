"""What the words around a mention make of it: who it is about, when it was, and whether it is so at all.

A scope belongs to a place in the text, never to the whole text. Whoever is named last holds until
somebody else is; a story, a lesson or an examination holds until the writer or kin come up in a later clause;
"if" and a time hold to the end of their sentence.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from medchat.medical_safety.folding import FoldedText
from medchat.medical_safety.mentions import Found, Mentions

#: Classes that say whose state it is. Those of the second line end a story or a lesson.
_PERSONS = ("who.self", "who.kin", "who.other", "who.formal", "who.indefinite")
_NEAR = ("who.self", "who.kin")
#: Classes that make what follows no report of a state: a case, a story, a report in the press, a lesson.
_GENRES = ("genre.case", "genre.fiction", "genre.news", "genre.study", "genre.lesson")
#: Classes whose words a textbook uses too.
_WEAK = ("term.", "ill.")
#: Behind a mention: a question about the thing itself.
_ASKED_REACH = 6
_ASKED_OF_SIGN = 2
_PAST_REACH = 30
#: "偏瘫七年了": an illness that has lasted so long is no emergency.
_YEARS_REACH = 3
#: "collapsed 10 years ago"
_AGO_REACH = 12
#: "煤气中毒住过院，早好了"
_SETTLED_REACH = 25
#: How near the words of an examination or a textbook make a case of somebody who is not the writer's kin.
_EXAM_REACH = 120
#: "一个 4 岁的孩子": nobody's child in particular.
_INDEFINITE_REACH = 12
#: How near somebody laughs.
_JOKE_REACH = 25
_PREDICATE = ("time.now", "time.sudden", "time.duration", "help")


@dataclass(frozen=True, slots=True)
class Scope:
    """The scopes at a mention. `person` is "" if nobody is named; `genre` is "" for plain words."""

    person: str = ""
    genre: str = ""
    conditional: bool = False
    past: bool = False
    asked: bool = False
    joke: bool = False
    predicate: bool = False

    def words(self) -> tuple[str, ...]:
        """Return the scopes that are there, by name."""
        named = [self.person, self.genre]
        named += [
            name for name in ("conditional", "past", "asked", "joke", "predicate") if getattr(self, name)
        ]
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

    def _walk(self) -> None:
        person, genre, genre_at, indefinite_at = "", "", -1, -_INDEFINITE_REACH
        for event in self._mentions.of((*_PERSONS, *_GENRES)):
            name = event.name
            if name == "who.indefinite":
                indefinite_at = event.end
                continue
            if name == "who.formal":
                indefinite_at = event.end
            elif name != "who.self" and (
                event.start - indefinite_at < _INDEFINITE_REACH
                and self._same_clause(indefinite_at, event.start)
            ):
                name = "who.formal"
            if name in _GENRES:
                if name == "genre.case" and person and self._same_clause(self._at[-1], event.start):
                    continue
                genre, genre_at = name, event.end
                if name == "genre.case":
                    person = ""
            elif not genre:
                person = name
            elif name in _NEAR and not self._same_clause(genre_at, event.start):
                person, genre = name, ""
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
        if not genre and person not in _NEAR and self._in_an_exam(found, person):
            genre = "exam"
        return Scope(
            person=person,
            genre=genre,
            conditional=self._conditional(found),
            past=self._past(found),
            asked=self._asked(found),
            joke=self._joke(found),
            predicate=self._predicate(found),
        )

    def _named_inside(self, found: Found, index: int) -> tuple[str, str]:
        """Return the scopes that begin within the mention: "晕倒在我家门口"."""
        if index + 1 < len(self._at) and self._at[index + 1] <= found.end + 2:
            return self._states[index + 1]
        return "", ""

    def _in_an_exam(self, found: Found, person: str) -> bool:
        names: tuple[str, ...] = ("exam",)
        if person == "who.formal":
            names = ("exam", "exam.clinical", "register")
        elif found.name.startswith(_WEAK):
            names = ("exam", "exam.clinical")
        reach = (max(0, found.start - _EXAM_REACH), found.end + _EXAM_REACH)
        return self._mentions.first_from(names, *reach) is not None

    def _conditional(self, found: Found) -> bool:
        index = bisect_right(self._conditions, found.start) - 1
        if index < 0:
            return False
        start = self._conditions[index]
        now = self._mentions.first_from(("time.now",), start, found.start)
        return now is None and not self._folded.sentence_end_between(start, found.start)

    def _past(self, found: Found) -> bool:
        index = bisect_right(self._time_starts, found.start) - 1
        time = self._times[index] if index >= 0 else None
        if (
            time is not None
            and not self._folded.sentence_end_between(time.start, found.start)
            and (found.start - time.end <= _PAST_REACH or time.name == "time.now")
        ):
            return time.name == "time.past"
        if self._folded.text.startswith("过", found.end) and not self._folded.text.startswith(
            "过来", found.end
        ):
            return True
        years = self._mentions.first_from(("time.years",), found.end, found.end + _YEARS_REACH)
        if years is not None and self._same_clause(found.end, years.start):
            return True
        if self._said_to_be_ago(found):
            return True
        settled = self._mentions.first_from(("settled",), found.end, found.end + _SETTLED_REACH)
        return settled is not None and not self._folded.sentence_end_between(found.end, settled.start)

    def _said_to_be_ago(self, found: Found) -> bool:
        """Whether English says behind the mention how long ago it was: "had a stroke 10 years ago"."""
        past = self._mentions.first_from(("time.past",), found.end, found.end + _AGO_REACH)
        return (
            past is not None
            and self._folded.text.startswith("ago", past.end - 3)
            and self._same_clause(found.end, past.start)
        )

    def _asked(self, found: Found) -> bool:
        reach = _ASKED_REACH if found.name.startswith(_WEAK) else _ASKED_OF_SIGN
        asked = self._mentions.first_from(("asked",), found.end, found.end + reach)
        return asked is not None and self._same_clause(found.end, asked.start)

    def _joke(self, found: Found) -> bool:
        return (
            self._mentions.first_from(("joke",), found.start - _JOKE_REACH, found.end + _JOKE_REACH)
            is not None
        )

    def _predicate(self, found: Found) -> bool:
        if "了" in self._folded.text[found.start : found.end + 3]:
            return True
        return any(
            near is not None
            and not self._folded.sentence_end_between(min(near.end, found.end), max(near.start, found.start))
            for near in (
                self._mentions.first_from(_PREDICATE, max(0, found.start - 15), found.start - 1),
                self._mentions.first_from(_PREDICATE, found.end, found.end + 12),
            )
        )


def silenced_by(scope: Scope, name: str, *, intent: bool) -> str:
    """Return the name of the scope that makes a mention no emergency, "" if none does.

    `name` is the mention's class and says how much the words claim alone: "term." is a textbook's word too
    and needs somebody or a predicate, "ill." is a diagnosis and needs a predicate always; any other is how
    people write of what they see. `intent` to harm oneself is silenced by no past, question or if.
    """
    if scope.genre and not (scope.genre == "genre.lesson" and (scope.predicate or intent)):
        return scope.genre
    if intent:
        return "asked" if scope.asked and not scope.person else ""
    if scope.conditional:
        return "conditional"
    if scope.past or scope.joke:
        return "past" if scope.past else "joke"
    if scope.predicate:
        return "asked" if scope.asked and not scope.person and name.startswith(_WEAK) else ""
    if name.startswith("ill."):
        return "no predicate"
    if scope.person:
        return ""
    if scope.asked:
        return "asked"
    return "nobody named" if name.startswith("term.") else ""
