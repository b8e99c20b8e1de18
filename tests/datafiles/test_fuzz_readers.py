"""Whatever a data file holds, it is read or refused with a documented exit code, soon and in little memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fuzzing import EXAMPLES, fuzz
from hypothesis import strategies as st

from medchat.batch import read_questions
from medchat.datafiles.fields import NAMES, WEAK_NAMES
from medchat.errors import CheckpointError, DataError
from medchat.sft_job.data import read_training_data

#: Deeper than a parser follows. Not more: the generator keeps what it has made.
DEEP = 3000
#: What files begin with, end with, and trip over.
PIECES = st.sampled_from(
    [
        *(
            b'{"question": "a", "answer": "b"}',
            b"question,answer",
            b'{"data": [',
            b'"messages": [',
            b"[1",
            b"{}",
        ),
        *(
            b"\n",
            b"\r\n",
            b",",
            b"\t",
            b"[",
            b"]",
            b"{",
            b"}",
            b'"',
            b":",
            b"'",
            b"\\",
            b" ",
            b"-",
            b".",
            b"1e5",
        ),
        *(
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\0",
            b"\0\0\0",
            b"\xb8\xd0\xc3\xb0",
            b"\x80",
            "问".encode(),
            b"NaN",
            b"tru",
        ),
        *(b"PK\x03\x04", b"\x1f\x8b", b"<html", b"PAR1", b"\\ud800", '{"a": 1}'.encode("utf-16")),
        *(b"[" * DEEP, b'{"a":' * DEEP, b"9" * 5000),
    ]
)
CONTENTS = st.lists(PIECES | st.binary(max_size=6), max_size=14).map(b"".join)
SUFFIXES = st.sampled_from(["", ".json", ".jsonl", ".txt", ".csv", ".tsv"])
WORDS = st.text(max_size=6) | st.sampled_from(
    ["user", "assistant", "system", "问：头痛", "答：休息", "头痛", "\ud800"]
)
VALUES = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "value", "weight", "human", "gpt"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [name for names in (*NAMES.values(), *WEAK_NAMES.values()) for name in names] + ["A", "B", "x"]
)
RECORDS = st.lists(st.dictionaries(FIELDS, VALUES, max_size=5), min_size=1, max_size=3)


def read_every_way(path: Path) -> None:
    """Read the file as training data, good records alone, and as questions; each is refused for itself."""
    for read in (
        lambda: read_training_data(path),
        lambda: read_training_data(path, skip_bad=True),
        lambda: read_questions(path),
    ):
        try:
            read()
        except (DataError, CheckpointError) as error:
            assert error.what and error.where.startswith(str(path))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_bytes_under_any_name(tmp_path: Path, examples: int) -> None:
    def read(case: tuple[bytes, str]) -> None:
        path = tmp_path / f"data{case[1]}"
        path.write_bytes(case[0])
        read_every_way(path)

    fuzz(read, st.tuples(CONTENTS, SUFFIXES), examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_records_under_the_names_that_mean_something(tmp_path: Path, examples: int) -> None:
    def read(case: list[object]) -> None:
        path = tmp_path / "data.json"
        path.write_text("\n".join(map(json.dumps, case)), encoding="utf-8")
        read_every_way(path)

    fuzz(read, RECORDS, examples)
