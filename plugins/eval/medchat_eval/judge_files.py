"""What a judge gets to see: answers from result files, criteria from a file of questions, ratings of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.plugin_kit import DataError, UsageError, open_data_file, say, sha256_of
from medchat_eval.judge_forms import TOP
from medchat_eval.open_file import OpenItem
from medchat_eval.results import data_facts

#: The fields of a line that say what answered.
_MADE_BY = ("model", "adapter", "template", "dtype")


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer that was given earlier. `id` is the record's own, else its index."""

    id: str
    question: str
    answer: str
    #: What the record says is right, "" where it says nothing.
    reference: str = ""


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """The answers of one run of `medchat infer` or of an evaluation; `models` are those that gave them."""

    path: Path
    sha256: str
    answers: tuple[GivenAnswer, ...]
    models: frozenset[str]
    failed: int
    #: What answered, and what says that a model did, as the first line has them.
    made_by: Mapping[str, Any]
    mark: str

    @property
    def facts(self) -> dict[str, Any]:
        """What results state of it."""
        return data_facts(self.path, self.sha256, len(self.answers)) | {"model": sorted(self.models)}


def read_answer_file(path: Path) -> AnswerFile:
    """Read a result file. Raises CheckpointError where it cannot be read, DataError for a line that is no result."""
    answers: list[GivenAnswer] = []
    models: set[str] = set()
    failed = 0
    made_by: Mapping[str, Any] = {}
    mark = ""
    with open_data_file(path) as file:
        for item in file.items():
            row = item.value if isinstance(item.value, dict) else {}
            question, answer = row.get("question"), row.get("answer")
            if item.problem or not isinstance(question, str) or not isinstance(answer, str):
                raise DataError(
                    item.problem or say("不是回答的结果行", "no line of answers"),
                    say("先运行：medchat infer --output 文件", "first run: medchat infer --output FILE"),
                    where=f"{path}:{item.line}",
                )
            made_by = made_by or {name: row[name] for name in _MADE_BY if name in row}
            mark = mark or str(row.get("disclaimer", ""))
            models.add(f"{row.get('backbone', '')} {row.get('model', '')}".strip())
            if row.get("finish") == "error":
                failed += 1
                continue
            identity = row.get("id", row.get("index", len(answers)))
            reference = row.get("reference")
            stated = reference if isinstance(reference, str) else ""
            answers.append(GivenAnswer(str(identity), question, answer, stated))
    if not answers:
        raise DataError(say("文件里没有回答", "the file holds no answer"), "medchat infer", where=str(path))
    return AnswerFile(path, sha256_of(path), tuple(answers), frozenset(models), failed, made_by, mark)


def paired(one: AnswerFile, other: AnswerFile) -> list[tuple[GivenAnswer, GivenAnswer]]:
    """Return the answers of both to the same questions, in the first one's order. Raises DataError for none."""
    by_question = {answer.question: answer for answer in other.answers}
    pairs = [
        (answer, by_question[answer.question]) for answer in one.answers if answer.question in by_question
    ]
    if not pairs:
        raise DataError(
            say("两个文件没有相同的问题", "the two files have no question in common"),
            say("用同一份问题各运行一次 medchat infer", "run medchat infer on the same questions for both"),
            where=f"{one.path}, {other.path}",
        )
    return pairs


def criteria_for(answer: GivenAnswer, questions: Mapping[str, OpenItem], path: Path) -> OpenItem:
    """Return the question with its criteria. Raises DataError for a question that has none."""
    found = questions.get(answer.question.strip())
    if found is None or not found.criteria:
        raise DataError(
            say(f"“{answer.question[:40]}”没有评分标准", f"no criteria for {answer.question[:40]!r}"),
            say("在 --questions 的文件里给它加上 criteria", "add criteria to it in the file of --questions"),
            where=str(path),
        )
    return found


def refuse_own_judge(judge: str, files: Sequence[AnswerFile]) -> None:
    """Raise UsageError where the judge gave one of the answers itself."""
    for file in files:
        if judge in file.models:
            raise UsageError(
                say("模型不能评判自己的回答", "a model cannot judge its own answers"),
                say("换一个 --model 作评审", "take another --model as the judge"),
                where=str(file.path),
            )


def read_ratings(path: Path, dimensions: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return people's ratings by id and dimension, from a table with the column `id` and a column a dimension.

    Raises DataError for a rating that is no whole number from 0 to 3, or a table without these columns.
    """
    found: dict[str, dict[str, int]] = {}
    with open_data_file(path, is_known=lambda name: name.strip() in ("id", *dimensions)) as file:
        for item in file.items():
            row = item.value if isinstance(item.value, dict) else {}
            try:
                if item.problem:
                    raise ValueError(item.problem)
                ratings = {name: int(row[name]) for name in dimensions if name in row}
                if "id" not in row or not ratings or not all(0 <= one <= TOP for one in ratings.values()):
                    raise ValueError
                found[str(row["id"])] = ratings
            except ValueError as error:
                raise DataError(
                    str(error)
                    if item.problem
                    else say(
                        f"要有 id，分数是 0 到 {TOP} 的整数", f"wanted: id, and whole numbers from 0 to {TOP}"
                    ),
                    say(f"列名：id,{','.join(dimensions)}", f"columns: id,{','.join(dimensions)}"),
                    where=f"{path}:{item.line}",
                ) from None
    return found
