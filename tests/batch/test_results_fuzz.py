"""A result file in which anything may stand is read, or refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import EXAMPLES, fuzz, json_files

from medchat.batch.comparison import Comparison, read_column
from medchat.batch.results import read_results
from medchat.document import as_markdown
from medchat.errors import DataError, MedchatError

KEYS = (
    "index",
    "question",
    "answer",
    "finish",
    "input",
    "reference",
    "safety",
    "decoding",
    "adapter",
    "model",
)
ROW = b'{"index": 0, "question": "a", "answer": "b", "finish": "stop", '


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_result_file_is_read_or_refused(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "answers.jsonl"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_results(path)

    fuzz(read, json_files(KEYS), examples, DataError)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_other_field_of_a_line_can_be_compared_or_is_refused(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "answers.jsonl"

    def read(content: bytes) -> None:
        path.write_bytes(content.replace(b"{", ROW, 1) + b"\n")
        comparison = Comparison((read_column("一", path),))
        as_markdown(comparison.as_page())
        comparison.as_json()

    fuzz(read, json_files(KEYS[4:]), examples, MedchatError)
