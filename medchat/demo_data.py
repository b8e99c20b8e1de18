"""The demo's own questions and answers, read from `medchat/data/demo_qa.jsonl` and validated.

How they were written, reviewed and sourced: docs/demo-data.md. Knows nothing of models or training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from importlib.resources import files

from medchat.errors import DataError
from medchat.language import say

#: The most characters a question may have, and the least and most of an answer. They bound the demo's
#: training time (see `medchat.demo_recipe`), so a longer pair is refused rather than trained on slowly.
QUESTION_LIMIT = 24
ANSWER_LENGTHS = range(25, 61)
#: How many review passes every pair has had before it may ship (docs/demo-data.md says what each looks for).
REVIEWS_REQUIRED = 2

PAIRS_FILE = "data/demo_qa.jsonl"
_REINSTALL = "pip install -c constraints.txt -e ."


@dataclass(frozen=True, slots=True)
class DemoPair:
    """One question and its answer, with the public source the fact was checked against.

    `source` is the publisher and 《title》, `source_url` an address of that publisher, `reviewed` the
    date of the last review and `reviews` how many reviews there were.
    """

    id: str
    topic: str
    question: str
    answer: str
    source: str
    source_url: str
    reviewed: date
    reviews: int


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
    reviews = record.pop("reviews")
    if type(reviews) is not int or reviews < REVIEWS_REQUIRED:
        raise _damaged(place, f"reviews {reviews!r}")
    for key, value in record.items():
        if not isinstance(value, str) or not value or value != value.strip():
            raise _damaged(place, f"{key} {value!r}")
    try:
        reviewed = date.fromisoformat(record.pop("reviewed"))
    except ValueError as error:
        raise _damaged(place, f"reviewed: {error}") from error
    pair = DemoPair(**record, reviewed=reviewed, reviews=reviews)
    if len(pair.question) > QUESTION_LIMIT or len(pair.answer) not in ANSWER_LENGTHS:
        raise _damaged(
            place, say("问题或答案的长度不合要求", "the question or the answer has the wrong length")
        )
    if not pair.source_url.startswith("https://"):
        raise _damaged(place, f"source_url {pair.source_url!r}")
    return pair


def _damaged(where: str, why: str) -> DataError:
    return DataError(
        say(f"演示问答数据有误：{why}", f"The demo's question file is not valid: {why}"),
        say("在项目目录重新安装：{0}", "reinstall from the project folder: {0}").format(_REINSTALL),
        where=where,
    )
