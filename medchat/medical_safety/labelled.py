"""Labelled sentences: reading a file of them, and how well the rules agree with the labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.datafiles.data_file import open_data_file
from medchat.errors import DataError
from medchat.language import say
from medchat.medical_safety.red_flags import find_red_flags

#: A sentence longer than this is no sentence.
MAX_CHARACTERS = 20_000
#: A file with more lines is refused.
MAX_SENTENCES = 200_000
#: The factor of a two-sided interval of 95 %.
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its label: whether it must fire. `previous` is the user's turn before it, "" for none."""

    line: int
    text: str
    must: bool
    category: str = ""
    language: str = ""
    vital: bool = False
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of `total` sentences fired."""

    fired: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """The share that fired, 0 of none."""
        return self.fired / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of 95 % for the share; all of [0, 1] where there is no sentence."""
        if not self.total:
            return 0.0, 1.0
        n, p, square = self.total, self.share, _Z95**2
        middle = (p + square / (2 * n)) / (1 + square / n)
        half = _Z95 * math.sqrt(p * (1 - p) / n + square / (4 * n * n)) / (1 + square / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.fired + other.fired, self.total + other.total)


@dataclass(frozen=True, slots=True)
class Score:
    """How the rules did: on what must fire, the vital part of it, and what must not."""

    must: Tally
    vital: Tally
    must_not: Tally
    by_category: dict[tuple[str, bool], Tally]
    by_language: dict[tuple[str, bool], Tally]
    wrong: tuple[Sentence, ...]


def read_sentences(path: Path) -> list[Sentence]:
    """Return the sentences of a file of JSON lines, or another data file: `text`, `must`, and optionally `category`,
    `lang`, `vital`, `previous`.

    Raises DataError if a line is none of that, CheckpointError if the file cannot be read.
    """
    sentences: list[Sentence] = []
    with open_data_file(path) as file:
        for item in file.items():
            where = f"{path}:{item.line}"
            if item.problem:
                raise DataError(item.problem, _form(), where=where)
            if len(sentences) == MAX_SENTENCES:
                raise DataError(
                    say(f"超过 {MAX_SENTENCES} 句", f"more than {MAX_SENTENCES} sentences"), where=where
                )
            sentences.append(_sentence(item.line, item.value, where))
    return sentences


def _sentence(line: int, value: Any, where: str) -> Sentence:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise DataError(say("缺少字符串 text", "text is missing or not a string"), _form(), where=where)
    if not isinstance(value.get("must"), bool):
        raise DataError(
            say("must 不是 true 或 false", "must is neither true nor false"), _form(), where=where
        )
    previous = value.get("previous") or ""
    if not isinstance(previous, str) or len(value["text"]) + len(previous) > MAX_CHARACTERS:
        raise DataError(
            say(f"previous 不是字符串，或超过 {MAX_CHARACTERS} 字",
                f"previous is not a string, or there are more than {MAX_CHARACTERS} characters"),
            where=where,
        )  # fmt: skip
    return Sentence(
        line,
        value["text"],
        value["must"],
        str(value.get("category") or ""),
        str(value.get("lang") or value.get("language") or ""),
        bool(value.get("vital")),
        previous,
    )


def _form() -> str:
    return say(
        '每行写成 {"text": "…", "must": true}，可以再写 category、lang、vital、previous',
        'write each line as {"text": "…", "must": true}, with category, lang, vital, previous if you like',
    )


def score(sentences: Iterable[Sentence]) -> Score:
    """Run the rules on labelled sentences and count."""
    totals = {"must": Tally(), "vital": Tally(), "must not": Tally()}
    by_category: dict[tuple[str, bool], Tally] = {}
    by_language: dict[tuple[str, bool], Tally] = {}
    wrong: list[Sentence] = []
    for sentence in sentences:
        fired = bool(find_red_flags(sentence.text, sentence.previous or None))
        one = Tally(int(fired), 1)
        for name in _groups(sentence):
            totals[name] += one
        category, language = (sentence.category, sentence.must), (sentence.language, sentence.must)
        by_category[category] = by_category.get(category, Tally()) + one
        by_language[language] = by_language.get(language, Tally()) + one
        if fired != sentence.must:
            wrong.append(sentence)
    return Score(totals["must"], totals["vital"], totals["must not"], by_category, by_language, tuple(wrong))


def _groups(sentence: Sentence) -> Iterator[str]:
    yield "must" if sentence.must else "must not"
    if sentence.must and sentence.vital:
        yield "vital"
