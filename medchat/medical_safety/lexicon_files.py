"""The lexicon as it is in the package: word classes, compounds, rules and notices, dated TOML files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from medchat.medical_safety.folding import Folder
from medchat.medical_safety.word_finder import WordFinder, WordPattern, read_pattern

FOLDER = "lexicon"
_SEPARATORS = re.compile(r"[|\n]")
_STEP = re.compile(r"~(\d+)")
#: How many characters may stand between two steps of a sequence that says nothing else.
_USUAL_GAP = 4

#: Classes that a negation takes back: what is felt or seen, what was done, illnesses by name.
POLAR = ("sign.", "term.", "act.", "ill.")


@dataclass(frozen=True, slots=True)
class Sequence:
    """Classes in the order in which they follow each other: (alternatives, characters allowed before)."""

    steps: tuple[tuple[tuple[str, ...], int], ...]


@dataclass(frozen=True, slots=True)
class Compound:
    """A class found where words of other classes follow each other."""

    name: str
    sequences: tuple[Sequence, ...]


@dataclass(frozen=True, slots=True)
class FlagRule:
    """What must stand together for a notice.

    `all` holds the alternatives of each part; the first is the one whose scopes decide. `reach` is how many
    characters the parts may lie apart; nothing of `unless` may stand near the first. `intent` rules are
    silenced by no past, question or if.
    """

    name: str
    notice: str
    all: tuple[tuple[str, ...], ...]
    unless: tuple[str, ...]
    reach: int
    intent: bool
    vital: bool
    source: str
    reviewed: date


@dataclass(frozen=True, slots=True)
class NoticeText:
    """A notice: `rank` orders them, the lowest first; `calls` is the number it says to call, "" for none."""

    key: str
    rank: int
    urgent: bool
    calls: str
    zh: str
    en: str
    short_zh: str
    short_en: str


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything the rules read."""

    words: tuple[WordPattern, ...]
    finder: WordFinder
    compounds: tuple[Compound, ...]
    rules: tuple[FlagRule, ...]
    notices: dict[str, NoticeText]
    folder: Folder


def split_words(listed: str) -> list[str]:
    """Return the words of a list in which they are separated by bars or line ends.

    A word may hold braces for a choice: "{喘,吸}不{上,进}气" stands for four.
    """
    return [word.strip() for word in _SEPARATORS.split(listed) if word.strip()]


def lexicon_text(name: str) -> str:
    """Return a file of the lexicon by its name."""
    return (files(__package__) / FOLDER / name).read_text(encoding="utf-8")


def lexicon_tables() -> dict[str, dict[str, Any]]:
    """Return the parsed files of the lexicon by name, without their ending."""
    folder = files(__package__) / FOLDER
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda f: f.name)
    return {
        file.name.removesuffix(".toml"): tomllib.loads(file.read_text(encoding="utf-8")) for file in found
    }


def lexicon_characters() -> set[str]:
    """Return every character of every word, as written in the lexicon."""
    return {character for _, word in _words(lexicon_tables()) for character in word}


@cache
def load_lexicon() -> Lexicon:
    """Return the lexicon, read at the first call."""
    tables = lexicon_tables()
    traditional = {
        old: new for new, olds in tables.get("traditional", {}).get("characters", {}).items() for old in olds
    }
    folder = Folder(traditional)
    words = tuple(read_pattern(name, folder.word(word)) for name, word in _words(tables))
    return Lexicon(
        words=words,
        finder=WordFinder(words),
        compounds=tuple(_compounds(tables)),
        rules=tuple(_rules(tables)),
        notices={text.key: text for text in _notices(tables)},
        folder=folder,
    )


@cache
def notice_texts() -> frozenset[str]:
    """Return every text that a notice of ours can have: in full and short, in both languages."""
    notices = _notices({"notices": tomllib.loads(lexicon_text("notices.toml"))})
    return frozenset(
        text for notice in notices for text in (notice.zh, notice.en, notice.short_zh, notice.short_en)
    )


def _words(tables: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for table in tables.values():
        for name, listed in table.get("words", {}).items():
            for word in split_words(listed):
                yield name, word


def _sequence(written: str) -> Sequence:
    """Read "sign.a ~6 part.b|part.c": what follows what, and how many characters may lie between."""
    steps: list[tuple[tuple[str, ...], int]] = []
    gap = _USUAL_GAP
    for item in written.split():
        if distance := _STEP.fullmatch(item):
            gap = int(distance[1])
        else:
            steps.append((tuple(item.split("|")), gap))
            gap = _USUAL_GAP
    return Sequence(tuple(steps))


def _compounds(tables: dict[str, dict[str, Any]]) -> Iterator[Compound]:
    for table in tables.values():
        for name, written in table.get("compounds", {}).items():
            yield Compound(name, tuple(_sequence(line) for line in written.strip().splitlines()))


def _rules(tables: dict[str, dict[str, Any]]) -> Iterator[FlagRule]:
    for table in tables.values():
        for row in table.get("rule", ()):
            yield FlagRule(
                name=row["name"],
                notice=row["notice"],
                all=tuple(tuple(part.split("|")) for part in row["all"]),
                unless=tuple(row.get("unless", "").split("|")) if "unless" in row else (),
                reach=row.get("reach", 60),
                intent=row.get("intent", False),
                vital=row.get("vital", False),
                source=row["source"],
                reviewed=row.get("reviewed", table["date"]),
            )


def _notices(tables: dict[str, dict[str, Any]]) -> Iterator[NoticeText]:
    for rank, row in enumerate(tables["notices"]["notice"]):
        yield NoticeText(
            key=row["key"],
            rank=rank,
            urgent=row.get("urgent", True),
            calls=row.get("calls", ""),
            zh=row["zh"],
            en=row["en"],
            short_zh=row["short_zh"],
            short_en=row["short_en"],
        )
