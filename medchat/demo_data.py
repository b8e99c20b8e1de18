"""The demo's own questions and answers, read from `medchat/data/demo_qa.jsonl` and validated.

How they were written, reviewed and sourced: docs/demo-data.md. Independent of models or training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from medchat.errors import DataError
from medchat.language import say

#: The most characters a question may have, and the least and most of an answer. They bound the demo's
#: training time (see `medchat.demo_recipe`), so a longer pair is refused rather than trained on slowly.
QUESTION_LIMIT = 24
ANSWER_LENGTHS = range(25, 61)
#: How often the project's authors have read every pair before it may ship (docs/demo-data.md says what each
#: pass looks for). No physician is among them.
AUTHOR_PASSES_REQUIRED = 2
#: A document's date, as exactly as it is known: year, month or day.
_SOURCE_DATE = re.compile(r"(?:19|20)\d{2}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?)?")

PAIRS_FILE = "data/demo_qa.jsonl"
_REINSTALL = "pip install -c constraints.txt -e ."


@dataclass(frozen=True, slots=True)
class DemoPair:
    """One question and its answer, with the public source the fact was checked against.

    `source` is the publisher and 《title》, `source_date` the document's date (year, month or day),
    `source_url` its own page, "" if no lasting address is known. `author_passes` says how often the authors
    have read the pair, `last_pass` when they last did.
    """

    id: str
    topic: str
    question: str
    answer: str
    source: str
    source_date: str
    source_url: str
    last_pass: date
    author_passes: int


_KEYS = tuple(field.name for field in fields(DemoPair))


@cache
def demo_examples() -> tuple[DemoPair, ...]:
    """Return every pair of the demo, in file order.

    Raises DataError naming the file and line if the installed file is missing or damaged.
    """
    try:
        text = files("medchat").joinpath(PAIRS_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(f"medchat/{PAIRS_FILE}", str(error)) from error
    return read_pairs(text.splitlines(), f"medchat/{PAIRS_FILE}")


def read_pairs(lines: Iterable[str], where: str) -> tuple[DemoPair, ...]:
    """Read pairs from JSON lines; `where` names them in messages.

    Raises DataError with `where:line` for a line that is not such a pair, a number out of order, a
    question asked twice or an answer given twice, and when there is no line at all.
    """
    pairs: list[DemoPair] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        place = f"{where}:{number}"
        pair = _read_pair(line, place)
        if pair.id != f"demo-{number:03d}":
            raise _damaged(place, f"id {pair.id!r}")
        for text in (pair.question, pair.answer):
            if text in seen:
                raise _damaged(place, say(f"重复：{text}", f"repeated: {text}"))
            seen.add(text)
        pairs.append(pair)
    if not pairs:
        raise _damaged(where, say("文件是空的", "the file is empty"))
    return tuple(pairs)


def _read_pair(line: str, place: str) -> DemoPair:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise _damaged(place, str(error)) from error
    if not isinstance(record, dict) or tuple(record) != _KEYS:
        raise _damaged(place, say("字段应为 ", "the keys must be ") + ", ".join(_KEYS))
    passes = record.pop("author_passes")
    if type(passes) is not int or passes < AUTHOR_PASSES_REQUIRED:
        raise _damaged(place, f"author_passes {passes!r}")
    for key, value in record.items():
        if not isinstance(value, str) or value != value.strip() or not (value or key == "source_url"):
            raise _damaged(place, f"{key} {value!r}")
    try:
        last_pass = date.fromisoformat(record.pop("last_pass"))
    except ValueError as error:
        raise _damaged(place, f"last_pass: {error}") from error
    pair = DemoPair(**record, last_pass=last_pass, author_passes=passes)
    if len(pair.question) > QUESTION_LIMIT or len(pair.answer) not in ANSWER_LENGTHS:
        raise _damaged(
            place, say("问题或答案的长度不合要求", "the question or the answer has the wrong length")
        )
    if not _SOURCE_DATE.fullmatch(pair.source_date):
        raise _damaged(place, f"source_date {pair.source_date!r}")
    if pair.source_url and not _is_page(pair.source_url):
        raise _damaged(place, f"source_url {pair.source_url!r}")
    return pair


def _is_page(address: str) -> bool:
    """Whether `address` leads to a page: a publisher's front page says nothing of a document."""
    parts = urlsplit(address)
    return parts.scheme == "https" and bool(parts.hostname) and bool(parts.path.strip("/"))


def _damaged(where: str, why: str) -> DataError:
    return DataError(
        say(f"演示问答数据有误：{why}", f"The demo's question file is not valid: {why}"),
        say("在项目目录重新安装：{0}", "reinstall from the project folder: {0}").format(_REINSTALL),
        where=where,
    )
