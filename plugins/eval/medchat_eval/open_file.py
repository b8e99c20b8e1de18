"""Files of open questions: what is asked, and where there are any a reference answer and what an answer must say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from medchat.plugin_kit import DataError, Turn, read_questions, say, sha256_of, user_path
from medchat_eval.replies import Prompt
from medchat_eval.results import data_facts


@dataclass(frozen=True, slots=True)
class Criterion:
    """Something an answer does or does not say, and the points for it (negative for a fault)."""

    text: str
    points: float


@dataclass(frozen=True, slots=True)
class OpenItem:
    """One question. `reference` is "" and `criteria` empty where the file has none."""

    id: str
    line: int
    question: str
    turns: tuple[Turn, ...]
    reference: str
    criteria: tuple[Criterion, ...]
    license: str = ""

    @property
    def prompt(self) -> Prompt:
        """What is asked."""
        return Prompt(self.question, self.turns)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that has been read whole."""

    path: Path
    sha256: str
    items: tuple[OpenItem, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What results state of it."""
        return data_facts(self.path, self.sha256, len(self.items), (item.license for item in self.items))


@contextmanager
def named_or_shipped(name: str | None, shipped: str) -> Iterator[Path]:
    """Give the path of the file that was named, else of the one that is shipped (`data/open.jsonl`)."""
    if name is not None:
        yield user_path(name)
        return
    with as_file(files("medchat_eval").joinpath(shipped)) as path:
        yield path


def read_open_file(path: Path, *, limit: int | None = None) -> OpenFile:
    """Read questions in any form that `medchat infer` reads; `criteria` is a list of objects with `text` and `points`.

    Raises CheckpointError where it cannot be read, DataError for the first record that asks nothing or whose criteria
    are none.
    """
    read = read_questions(path)
    if read.bad:
        bad = read.bad[0]
        raise DataError(bad.reason, bad.remedy or say("修正这一条", "correct it"), where=f"{path}:{bad.line}")
    items = []
    for question in read.questions[:limit]:
        asked = question.asked
        try:
            criteria = tuple(_criteria(asked.extra.get("criteria")))
        except ValueError as error:
            remedy = '{"text": "…", "points": 1}'
            raise DataError(str(error), remedy, where=f"{path}:{question.line}") from None
        text = f"{asked.last}\n{asked.input}" if asked.input else asked.last
        reference = asked.reference if isinstance(asked.reference, str) else ""
        identity = str(question.index if asked.id is None else asked.id)
        stated = str(asked.extra.get("license") or "")
        items.append(OpenItem(identity, question.line, text, asked.turns, reference, criteria, stated))
    return OpenFile(path, sha256_of(path), tuple(items))


def _criteria(value: Any) -> Iterator[Criterion]:
    if value is None:
        return
    if not isinstance(value, list):
        raise ValueError(say("criteria 应当是列表", "criteria must be a list"))
    for one in value:
        text, points = (one.get("text"), one.get("points")) if isinstance(one, dict) else (None, None)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(say("criteria 里有一条没有 text", "a criterion has no text"))
        if isinstance(points, bool) or not isinstance(points, (int, float)) or not points:
            raise ValueError(say("criteria 里有一条没有 points", "a criterion has no points"))
        yield Criterion(text.strip(), float(points))
