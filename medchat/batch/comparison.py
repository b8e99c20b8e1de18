"""Result files side by side: the same questions, one column a file.

The Markdown is a table as the originals published theirs. What a model wrote is untrusted: it comes into
a cell with nothing left that a terminal would obey, and nothing that Markdown or HTML would act upon.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat import medical_safety
from medchat.batch.results import Line, in_order, read_results
from medchat.errors import CheckpointError, DataError
from medchat.language import say
from medchat.sanitize import escape_cell

#: What a question is joined by: its text, its input, and which of several equal ones it is.
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Column:
    """One result file. `label` heads its column; `torn` says that its last line is not whole."""

    label: str
    path: Path
    rows: Mapping[Key, Mapping[str, Any]]
    torn: bool

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
                for column in self.columns
                if key in column.rows
            }
            questions.append(question)
        columns = [{"label": column.label, **column.provenance} for column in self.columns]
        content = json.dumps(questions, ensure_ascii=False)
        return {
            "columns": columns,
            "questions": questions,
            "disclaimer": medical_safety.ai_mark(),
            "AIGC": medical_safety.aigc_metadata(content),
        }

    def as_markdown(self) -> str:
        """Return a page: label, mark, the table, and what each column is."""
        references = any(self._reference(key) is not None for key in self.keys)
        heads = [say("问题", "Question"), *([say("参考答案", "Reference")] if references else [])]
        heads += [escape_cell(column.label) for column in self.columns]
        lines = [_row(heads), "|" + ":---|" * len(heads)]
        for key in self.keys:
            question = "\n".join(part for part in key[:2] if part)
            shown = [
                escape_cell(question),
                *([escape_cell(_text(self._reference(key)))] if references else []),
            ]
            lines.append(_row([*shown, *(_shown(column.rows.get(key)) for column in self.columns)]))
        body = "\n".join([medical_safety.ai_mark(), "", *lines, "", *map(_described, self.columns)])
        label = json.dumps({"AIGC": medical_safety.aigc_metadata(body)}, ensure_ascii=False)
        return f"---\n{label}\n---\n\n{body}\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _answer(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None or row["finish"] == "error" else str(row["answer"])


def _shown(row: Mapping[str, Any] | None) -> str:
    answer = _answer(row)
    return say("（没有回答）", "(no answer)") if answer is None else escape_cell(answer)


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
    return f"- {escape_cell(column.label)}{say('：', ': ')}{escape_cell(made_by)}"
