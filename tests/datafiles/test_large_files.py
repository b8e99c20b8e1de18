"""Records are bounded by their size, read in pieces, and named by their line however long they are."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_texts import read, written
from hypothesis import given
from hypothesis import strategies as st

from medchat.datafiles.json_values import MAX_RECORD_BYTES, TextWindow, whole_array
from medchat.errors import DataError


@pytest.mark.parametrize("plain_text", [False, True])
@pytest.mark.parametrize(
    "start", ['{"question": "', '[{"question": "', '{"data": [{"question": "', "question,answer\n一,", "问"]
)
def test_a_huge_record_is_refused_by_its_size_before_it_is_read_whole(
    start: str, plain_text: bool, tmp_path: Path
) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.write(start.encode())
        file.seek(1000**3)  # sparse: it takes no room
        file.write(b"\n")
    with path.open("r+b") as file:  # and what is read of it looks like text
        file.seek(len(start.encode()))
        file.write(b"a" * (MAX_RECORD_BYTES + (1 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read(path, plain_text=plain_text)
        assert "4 MB" in caught.value.what or (start, plain_text) == ("问", False)
        assert tracemalloc.get_traced_memory()[1] < 12 * MAX_RECORD_BYTES
    finally:
        tracemalloc.stop()


class _Trickle(io.RawIOBase):
    """Gives a few bytes at a time, so that every value is cut somewhere."""

    def __init__(self, content: bytes, size: int) -> None:
        self._left, self._size = io.BytesIO(content), size

    def read(self, size: int = -1) -> bytes:
        return self._left.read(self._size)


@given(
    st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans()),
    st.integers(1, 5),
)
def test_a_value_that_is_read_in_pieces_is_the_value(values: list[Any], size: int) -> None:
    text = json.dumps(values, ensure_ascii=False)
    content = text.encode("utf-8", "surrogatepass")
    stream: Callable[[], Any] = lambda: TextWindow(_Trickle(content, size))  # type: ignore[arg-type]  # noqa: E731
    assert [item.value for item in whole_array(stream())] == values


def test_a_row_of_many_lines_without_end_is_refused_by_its_size(tmp_path: Path) -> None:
    cell = '"' + "a" * 1000 + '\n",'
    table = "question,answer\n一,二\n" + cell * (MAX_RECORD_BYTES // 500)
    path = written(tmp_path, table, "data.csv")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == f"{path}:3"


@pytest.mark.slow
@pytest.mark.parametrize("filler", ["{},", "[],", '"a",', "1,", "[[[[[[[[]]]]]]]],"])
def test_the_largest_record_takes_no_more_than_two_hundred_megabytes(filler: str, tmp_path: Path) -> None:
    row = "[" + filler * ((MAX_RECORD_BYTES - 100) // len(filler)) + "0]"
    path = written(tmp_path, f'{{"question": "一", "extra": {row}}}\n')
    tracemalloc.start()
    try:
        assert read(path)[0] == "lines"
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_bad_byte_deep_in_a_long_record_is_named_with_its_line(tmp_path: Path) -> None:
    lines = ["[{", *(f'"field {number}": "{"长" * 10}",' for number in range(5000)), '"question": "一"}]']
    content = "\n".join(lines).encode()
    assert read(written(tmp_path, content))[1][0]["question"] == "一"
    bad = content.replace(b'"field 4321": "', b'"field 4321": "\xff')
    path = written(tmp_path, bad)
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == f"{path}:4323"


def test_a_table_may_be_larger_than_a_record(tmp_path: Path) -> None:
    rows = MAX_RECORD_BYTES // 1000 + 100
    path = written(tmp_path, "question,answer\n" + f"一,{'a' * 1000}\n" * rows, "data.csv")
    assert len(read(path)[1]) == rows
