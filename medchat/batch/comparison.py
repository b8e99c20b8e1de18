"""Result files side by side: the same questions, one column a file.

The page is a table as the originals published theirs, with scores beside the answers where a plugin gives them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medchat import medical_safety
from medchat.batch.results import Line, in_order, read_results
from medchat.document import Document, Paragraph, Section, Table
from medchat.errors import CheckpointError, DataError
from medchat.hookspecs import AnswerScores, ReferencedAnswer
from medchat.language import say

#: What a question is joined by: its text, its input, and which of several equal ones it is.
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Column:
    """One result file. `label` heads its column; `torn` says that its last line is not whole.

    `scores` are those of its answers, `metrics` of all of them; both are empty until the answers are scored.
    """

    label: str
    path: Path
    rows: Mapping[Key, Mapping[str, Any]]
    torn: bool
    scores: Mapping[Key, float] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What answered, from the first line that says."""
        first = next(iter(self.rows.values()), {})
        names = ("model", "backbone", "adapter", "template", "dtype", "decoding")
        return {name: first[name] for name in names if name in first}


def read_column(label: str, path: Path) -> Column:
    """Read a result file. Raises CheckpointError where it is not there, DataError where it holds no result."""
    if not path.is_file():
        raise CheckpointError(
            say("没有这个结果文件", "there is no such result file"),
            say("先运行：medchat infer --output 文件", "first run: medchat infer --output FILE"),
            where=str(path),
        )
    written = read_results(path)
    if not written.lines:
        raise DataError(
            say("结果文件里没有回答", "the result file holds no answer"),
            say("先运行：medchat infer --output 文件", "first run: medchat infer --output FILE"),
            where=str(path),
        )
    return Column(label, path, dict(_keyed(in_order(written.lines))), written.torn > 0)


def _keyed(lines: Sequence[Line]) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    seen: Counter[tuple[str, str]] = Counter()
    for line in lines:
        asked = str(line.row["question"]), str(line.row.get("input", ""))
        yield (*asked, seen[asked]), line.row
        seen[asked] += 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Columns joined by question: the first file's questions in its order, then what only others have."""

    columns: tuple[Column, ...]

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every question once."""
        return tuple(dict.fromkeys(key for column in self.columns for key in column.rows))

    @property
    def lacking(self) -> Mapping[str, int]:
        """How many of the questions each column has no answer to; columns that answer all are left out."""
        count = {
            column.label: sum(_answer(column.rows.get(key)) is None for key in self.keys)
            for column in self.columns
        }
        return {label: number for label, number in count.items() if number}

    @property
    def referenced(self) -> bool:
        """Whether any question has an answer that its record says is right."""
        return any(self._reference(key) is not None for key in self.keys)

    def scored(self, score: Callable[[Sequence[ReferencedAnswer]], AnswerScores]) -> Comparison:
        """Return the comparison with what `score` finds the answers of each column to be worth."""
        return Comparison(tuple(self._scored(column, score) for column in self.columns))

    def _scored(self, column: Column, score: Callable[[Sequence[ReferencedAnswer]], AnswerScores]) -> Column:
        answered = {key: answer for key, row in column.rows.items() if (answer := _answer(row)) is not None}
        references = {key: self._reference(key) for key in answered}
        found = score(
            [
                ReferencedAnswer(_question(key), answer, right if isinstance(right, str) else "")
                for (key, answer), right in zip(answered.items(), references.values(), strict=True)
            ]
        )
        values = zip(answered, found.scores, strict=True)
        scores = {key: value for key, value in values if value is not None}
        return replace(column, scores=scores, metrics=found.metrics)

    def _reference(self, key: Key) -> Any:
        found = (column.rows[key].get("reference") for column in self.columns if key in column.rows)
        return next((reference for reference in found if reference is not None), None)

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as one object, every answer exactly as the model wrote it."""
        questions = []
        for key in self.keys:
            question: dict[str, Any] = {"question": key[0]}
            if key[1]:
                question["input"] = key[1]
            if (reference := self._reference(key)) is not None:
                question["reference"] = reference
            kept = ("answer", "finish", "error", "tokens", "seconds", "safety")
            question["answers"] = {
                column.label: {name: column.rows[key][name] for name in kept if name in column.rows[key]}
                | ({"score": round(column.scores[key], 6)} if key in column.scores else {})
                for column in self.columns
                if key in column.rows
            }
            questions.append(question)
        columns = [
            {"label": column.label, **column.provenance}
            | (
                {"metrics": {name: dict(one) for name, one in column.metrics.items()}}
                if column.metrics
                else {}
            )
            for column in self.columns
        ]
        content = json.dumps(questions, ensure_ascii=False)
        return {
            "columns": columns,
            "questions": questions,
            "disclaimer": medical_safety.ai_mark(),
            "AIGC": medical_safety.aigc_metadata(content),
        }

    def as_page(self) -> Document:
        """Return the page: the mark, the answers beside each other, what the columns score, what each column is."""
        table = self._answers()
        answers = Section(say("回答", "Answers"), [Paragraph(medical_safety.ai_mark()), table])
        columns = Section(say("各列", "Columns"), [Paragraph(_described(column)) for column in self.columns])
        scores = _metrics(self.columns)
        scored = [Section(say("得分", "Scores"), [scores])] if scores.rows else []
        content = json.dumps(table.rows, ensure_ascii=False)
        metadata = {"AIGC": medical_safety.aigc_metadata(content)}
        return Document(say("回答对比", "Answers compared"), [answers, *scored, columns], metadata)

    def _answers(self) -> Table:
        referenced = self.referenced
        heads, numbers = (
            [say("问题", "Question"), *([say("参考答案", "Reference")] if referenced else [])],
            [],
        )
        for column in self.columns:
            heads.append(column.label)
            if column.scores:
                numbers.append(len(heads))
                heads.append(say("得分", "Score"))
        rows = [self._cells(key, referenced=referenced) for key in self.keys]
        return Table(tuple(heads), rows, tuple(numbers))

    def _cells(self, key: Key, *, referenced: bool) -> list[str]:
        cells = [_question(key), *([_text(self._reference(key))] if referenced else [])]
        for column in self.columns:
            answer = _answer(column.rows.get(key))
            cells.append(say("（没有回答）", "(no answer)") if answer is None else answer)
            if column.scores:
                cells.append(f"{column.scores[key]:.3f}" if key in column.scores else "")
        return cells


def metric_text(metric: Mapping[str, float]) -> str:
    """Return a metric's value and its interval as a table shows them."""
    ends = f" [{metric['low']:.3f}–{metric['high']:.3f}]" if {"low", "high"} <= metric.keys() else ""
    return f"{metric['value']:.3f}{ends}"


def _cell(metric: Mapping[str, float]) -> str:
    count = say("，", ", ") + f"n = {metric['n']:.0f}" if "n" in metric else ""
    return metric_text(metric) + count if metric else ""


def _metrics(columns: Sequence[Column]) -> Table:
    """Return what the columns score as a whole, a row a metric."""
    rows = []
    for name in dict.fromkeys(name for column in columns for name in column.metrics):
        found = [column.metrics.get(name, {}) for column in columns]
        chance = next((one["chance"] for one in found if "chance" in one), None)
        shown = "" if chance is None else f"{chance:.3f}"
        rows.append((name, *map(_cell, found), shown))
    labels = [column.label for column in columns]
    return Table((say("指标", "Metric"), *labels, say("随机水平", "Chance")), rows)


def _question(key: Key) -> str:
    return "\n".join(part for part in key[:2] if part)


def _answer(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None or row["finish"] == "error" else str(row["answer"])


def _text(reference: Any) -> str:
    if reference is None:
        return ""
    return reference if isinstance(reference, str) else json.dumps(reference, ensure_ascii=False)


def _described(column: Column) -> str:
    made = column.provenance
    adapters, decoding = made.get("adapter"), made.get("decoding")
    parts = [
        str(made.get("model", "")),
        *(map(str, adapters) if isinstance(adapters, list) else ()),
        f"{say('模板', 'template')} {made.get('template', '?')}",
        *(f"{name}={value}" for name, value in (decoding if isinstance(decoding, dict) else {}).items()),
    ]
    made_by = say("，", ", ").join(part for part in parts if part)
    return f"{column.label}{say('：', ': ')}{made_by}"
