"""Whether the answers already written belong to this data and these settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medchat.batch.questions import Question
from medchat.batch.results import Line
from medchat.batch.rows import Provenance
from medchat.errors import DataError, UsageError
from medchat.language import say


def check_belongs(
    lines: Iterable[Line], questions: Iterable[Question], provenance: Provenance, output: Path
) -> None:
    """Refuse to mix: earlier lines must answer the same questions with the same model and settings.

    Raises DataError for a line whose question is not the data's, UsageError for one made otherwise.
    """
    asked: Mapping[int, tuple[str, str]] = {
        question.index: (question.text, question.asked.input) for question in questions
    }
    for line in lines:
        if asked.get(line.index) != (line.row["question"], line.row.get("input", "")):
            raise DataError(
                say(
                    f"结果文件里第 {line.index + 1} 条的问题与数据文件不同",
                    f"the result file's record {line.index + 1} asks a different question from the data file's",
                ),
                say(
                    "用原来的 --data，或换一个 --output",
                    "use the --data it was made from, or another --output",
                ),
                where=f"{output}:{line.number}",
            )
        require_same(line.row, provenance, f"{output}:{line.number}")


def require_same(row: Mapping[str, Any], provenance: Provenance, where: str) -> None:
    """Raise UsageError, naming `where`, for a line that was made by another model or with other settings."""
    if name := provenance.differs_from(row):
        ours, theirs = provenance.as_fields()[name], row[name]
        raise UsageError(
            say(
                f"结果文件中的回答是用其他设置生成的：{name} 是 {theirs}，现在是 {ours}",
                f"the answers there were made with other settings: {name} was {theirs} and is now {ours}",
            ),
            say(
                "沿用原来的设置继续，或换一个 --output，或用 --overwrite 重新开始",
                "continue with the same settings, use another --output, or start over with --overwrite",
            ),
            where=where,
        )
