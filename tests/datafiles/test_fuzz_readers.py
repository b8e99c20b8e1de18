"""Whatever a data file holds, it is read or refused with a documented exit code, soon and in little memory.

The cases are drawn from a number: what hypothesis keeps of 10,000 nested values would itself take 400 MB.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzzing import DEEP, EXAMPLES, fuzz
from hypothesis import strategies as st

from medchat.batch import read_questions
from medchat.datafiles.fields import MODEL_SIDE, NAMES, USER_SIDE, WEAK_NAMES
from medchat.errors import CheckpointError, DataError
from medchat.sft_job.data import read_training_data

#: What files begin with, end with, and trip over.
PIECES = [
    *(b'{"question": "a", "answer": "b"}', b"question,answer", b'{"data": [', b'"messages": [', b"[1", b"{}"),
    *(b"\n", b"\r\n", b",", b"\t", b"[", b"]", b"{", b"}", b'"', b":", b"'", b"\\", b" ", b"-", b".", b"1e5"),
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
    *(b'{"columns": [', b'"index": [0]', b'{"0": {', b'{"x": {"0":', b"[[", b"\xc0Y\xb5h", b"\xe8\xe9"),
    *(b"PK\x03\x04", b"\x1f\x8b", b"<html", b"PAR1", b"\\ud800", '{"a": 1}'.encode("utf-16")),
    *(b"[" * DEEP, b'{"a":' * DEEP, b"9" * 5000, b"a" * 70_000),
]
SUFFIXES = ("", ".json", ".jsonl", ".txt", ".csv", ".tsv", ".md", ".yaml")
WORDS = ("", " ", "头痛", "user", "Assistant", "system", "tool", "问：头痛", "答：休息", "\ud800", "a\0b")
KEYS = ("role", "from", "content", "value", "weight", "human", "gpt", "type", "text")
FIELDS = [name for names in (*NAMES.values(), *WEAK_NAMES.values()) for name in names]
FIELDS += [*USER_SIDE, *MODEL_SIDE, "source", "src", "tgt", "q", "A", "B", "x", ""]
SEEDS = st.integers(0, 1 << 48)


def content(random: Random) -> bytes:
    pieces = random.choices(PIECES, k=random.randrange(14))
    return b"".join(piece if random.random() < 0.8 else random.randbytes(3) for piece in pieces)


def value(random: Random, depth: int = 0) -> Any:
    kind = random.randrange(5 if depth > 3 else 9)
    if kind < 3:
        return random.choice(WORDS)
    if kind < 5:
        return random.choice((None, True, False, 0, 1, -1, 0.5, 1 << 70))
    size = random.randrange(4)
    if kind < 7:
        return [value(random, depth + 1) for _ in range(size)]
    return {random.choice(KEYS): value(random, depth + 1) for _ in range(size)}


def records(random: Random) -> str:
    many = range(random.randrange(1, 4))
    drawn = [{random.choice(FIELDS): value(random) for _ in range(random.randrange(5))} for _ in many]
    return "\n".join(map(json.dumps, drawn))


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
    def read(seed: int) -> None:
        random = Random(seed)
        path = tmp_path / f"data{random.choice(SUFFIXES)}"
        path.write_bytes(content(random))
        read_every_way(path)

    fuzz(read, SEEDS, examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_records_under_the_names_that_mean_something(tmp_path: Path, examples: int) -> None:
    def read(seed: int) -> None:
        path = tmp_path / "data.json"
        path.write_text(records(Random(seed)), encoding="utf-8")
        read_every_way(path)

    fuzz(read, SEEDS, examples)
