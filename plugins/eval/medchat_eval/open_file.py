"""Files of open questions: what is asked, and where there are any a reference answer and what an answer must say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from medchat.plugin_kit import (
    DataError,
    Question,
    QuestionRecord,
    RecordError,
    Turn,
    read_questions,
    say,
    sha256_of,
    user_path,
)
from medchat_eval.replies import Prompt
from medchat_eval.results import data_facts

#: So many types of task that are left out are named, each by so many characters.
_NAMED, _LONGEST_NAME = 5, 40
#: A criterion as it should be.
_CRITERION = '{"text": "…", "points": 1}'
#: Task types of PromptCBLUE whose answers are texts (MedDG, IMCS-V2-MRG); those of the others are labels and lists.
_GENERATION = ("response_generation", "report_generation")


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
    """A file that has been read whole. `left_out` counts records whose answer is no text, by the type of task."""

    path: Path
    sha256: str
    items: tuple[OpenItem, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What results state of it."""
        facts = data_facts(self.path, self.sha256, len(self.items), (item.license for item in self.items))
        return {**facts, "left_out": dict(self.left_out)} if self.left_out else facts


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

    Each question about a case of CMB-Clin is one, after the earlier ones and their reference answers. Of PromptCBLUE
    the generation tasks are read. Raises CheckpointError where it cannot be read, DataError for the first record
    that asks nothing or whose criteria or task are none.
    """
    read = read_questions(path)
    if read.bad:
        bad = read.bad[0]
        raise DataError(bad.reason, bad.remedy or say("修正这一条", "correct it"), where=f"{path}:{bad.line}")
    items: list[OpenItem] = []
    left_out: Counter[str] = Counter()
    for question in read.questions:
        try:
            if (task := _task(question.asked)) and task not in _GENERATION:
                left_out[task] += 1
            else:
                items += _items(question)
        except RecordError as error:
            remedy = error.remedy or say("修正这一条", "correct it")
            raise DataError(str(error), remedy, where=f"{path}:{question.line}") from None
    if not items:
        raise DataError(
            say("没有生成任务：", "no generation task: ") + ", ".join(list(left_out)[:_NAMED]),
            say("需要其中之一：", "one of these is needed: ") + ", ".join(_GENERATION),
            where=str(path),
        )
    return OpenFile(path, sha256_of(path), tuple(items[:limit]), dict(left_out))


def _task(asked: QuestionRecord) -> str:
    """Return the type of task of a record of PromptCBLUE, "" for any other. Raises RecordError where it is none."""
    if "task_dataset" not in asked.extra:
        return ""
    task = asked.extra.get("task_type")
    if not isinstance(task, str) or not task.strip():
        raise RecordError(say("没有 task_type，不知道是哪种任务", "no task_type: which task is it?"))
    return task.strip()[:_LONGEST_NAME]


def _items(question: Question) -> Iterator[OpenItem]:
    """Yield what a record asks: its last question, of a case each of its questions."""
    asked = question.asked
    identity = str(question.index if asked.id is None else asked.id)
    criteria = tuple(_criteria(asked.extra.get("criteria")))
    text = f"{asked.last}\n{asked.input}" if asked.input else asked.last
    reference = asked.reference if isinstance(asked.reference, str) else ""
    whole = (*asked.turns, Turn(text, reference))
    is_case = asked.form == "cmb-clin"
    for number in range(0 if is_case else len(asked.turns), len(whole)):
        yield OpenItem(
            f"{identity}/{number + 1}" if is_case else identity,
            question.line,
            whole[number].question,
            whole[:number],
            whole[number].answer,
            criteria,
            str(asked.extra.get("license") or ""),
        )


def _criteria(value: Any) -> Iterator[Criterion]:
    if value is None:
        return
    if not isinstance(value, list):
        raise RecordError(say("criteria 应当是列表", "criteria must be a list"), _CRITERION)
    for one in value:
        text, points = (one.get("text"), one.get("points")) if isinstance(one, dict) else (None, None)
        if not isinstance(text, str) or not text.strip():
            raise RecordError(say("criteria 里有一条没有 text", "a criterion has no text"), _CRITERION)
        if isinstance(points, bool) or not isinstance(points, (int, float)) or not points:
            raise RecordError(say("criteria 里有一条没有 points", "a criterion has no points"), _CRITERION)
        yield Criterion(text.strip(), float(points))
