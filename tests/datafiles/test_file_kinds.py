"""What a data file is, is told from its bytes: what can be read is read, the rest is named with a way on."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.datafiles.data_file import MAX_FILE_BYTES, open_data_file
from medchat.datafiles.fields import is_field
from medchat.datafiles.json_values import MAX_RECORD_BYTES, TextWindow, whole_array
from medchat.errors import CheckpointError, DataError
from medchat.language import set_language

ONE = {"question": "头痛怎么办？", "answer": "多休息。"}
TRADITIONAL = {"question": "頭痛怎麼辦？", "answer": "多休息，多喝水，還痛就去醫院。"}
TWO = {"question": "发热怎么办？", "answer": "多喝水。"}


def dumped(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def read(path: Path, *, plain_text: bool = False) -> tuple[str, list[Any], list[int]]:
    """Return the layout, the values and the lines they stand on; a bad line's value is its problem."""
    with open_data_file(path, plain_text=plain_text, is_known=is_field) as file:
        items = list(file.items())
        return file.layout, [item.problem or item.value for item in items], [item.line for item in items]


def written(folder: Path, content: str | bytes, name: str = "data.json") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


PAIR = f"{dumped(ONE)}\n{dumped(TWO)}\n"
#: content -> (layout, the lines of both records)
READ: dict[str, tuple[str | bytes, str, list[int]]] = {
    "lines": (PAIR, "lines", [1, 2]),
    "array": (dumped([ONE, TWO], 1), "array", [2, 6]),
    "array with a comma at its end": (dumped([ONE, TWO])[:-1] + ",\n]\n", "array", [1, 1]),
    "lines with commas": (PAIR.replace("\n", ",\n"), "lines", [1, 2]),
    "lines with commas and blanks": (PAIR.replace("\n", " , \r\n\r\n"), "lines", [1, 3]),
    "printed over several lines": (f"{dumped(ONE, 2)}\n{dumped(TWO, 2)}\n", "objects", [1, 5]),
    "printed, with commas": (f"{dumped(ONE, 2)},\n{dumped(TWO, 2)}\n", "objects", [1, 5]),
    "in a row on one line": (dumped(ONE) + dumped(TWO), "objects", [1, 1]),
    "a list in an object": (dumped({"version": "1", "data": [ONE, TWO]}, 1), "lists", [4, 8]),
    "a list in an object on one line": (dumped({"train": [ONE, TWO]}), "lists", [1, 1]),
    "two marks": ("\ufeff\ufeff" + PAIR, "lines", [1, 2]),
    "a mark in the middle": (f"\ufeff{dumped(ONE)}\n\ufeff{dumped(TWO)}", "lines", [1, 2]),
    "an array with two marks": ("\ufeff\ufeff" + dumped([ONE, TWO]), "array", [1, 1]),
    "UTF-16": (PAIR.encode("utf-16"), "lines", [1, 2]),
    "UTF-16 without a mark": (PAIR.encode("utf-16-le"), "lines", [1, 2]),
    "UTF-16, the other way round, as an array": (dumped([ONE, TWO]).encode("utf-16-be"), "array", [1, 1]),
    "UTF-32": (PAIR.encode("utf-32"), "lines", [1, 2]),
    "CSV": ("question,answer\r\n头痛怎么办？,多休息。\r\n发热怎么办？,多喝水。\r\n", "csv", [2, 3]),
    "CSV with a mark and empty rows": (
        "\ufeffquestion,answer,\n头痛怎么办？,多休息。,\n,,\n\n发热怎么办？,多喝水。,\n",
        "csv",
        [2, 5],
    ),
    "TSV": ("question\tanswer\n头痛怎么办？\t多休息。\n发热怎么办？\t多喝水。", "tsv", [2, 3]),
    "UTF-16 TSV, as spreadsheets write it": (
        "question\tanswer\n头痛怎么办？\t多休息。\n发热怎么办？\t多喝水。".encode("utf-16"),
        "tsv",
        [2, 3],
    ),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("plain_text", [False, True])
def test_what_can_be_read_is_read_with_the_line_of_each_record(
    kind: str, plain_text: bool, tmp_path: Path
) -> None:
    content, layout, lines = READ[kind]
    assert read(written(tmp_path, content), plain_text=plain_text) == (layout, [ONE, TWO], lines)


@pytest.mark.parametrize("kind", READ)
def test_the_name_of_a_file_does_not_matter_where_its_content_says_what_it_is(
    kind: str, tmp_path: Path
) -> None:
    content, layout, _ = READ[kind]
    for name in ("data.txt", "data", "data.jsonl", "DATA.JSON"):
        assert read(written(tmp_path, content, name), plain_text=True)[:2] == (layout, [ONE, TWO])


def test_a_cell_may_hold_line_ends_delimiters_and_quotes(tmp_path: Path) -> None:
    table = 'question,answer\n"一，\n二,三","他说""好"""\n四,五\n'
    assert read(written(tmp_path, table, "data.csv")) == (
        "csv",
        [{"question": "一，\n二,三", "answer": '他说"好"'}, {"question": "四", "answer": "五"}],
        [2, 4],
    )


def test_a_row_of_the_wrong_width_is_bad_and_the_others_are_read(tmp_path: Path) -> None:
    set_language("en")
    layout, values, lines = read(
        written(tmp_path, "question,answer\n一,二\n三\n四,五,六\n七,八\n", "data.csv")
    )
    assert (layout, lines) == ("csv", [2, 3, 4, 5])
    assert values[1] == "the row has 1 cells, the first row 2 columns" and "3 cells" in values[2]
    assert values[3] == {"question": "七", "answer": "八"}


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    set_language("en")
    values = read(written(tmp_path, ",Question,Answer\n0,一,二\n", "data.csv"))[1]
    assert values == [{"column 1": "0", "Question": "一", "Answer": "二"}]


@pytest.mark.parametrize(
    ("table", "line", "named"),
    [
        ("question,answer,answer\n一,二,三\n", 1, "answer"),
        ('question,answer\n一,二\n三,"四\n五,六\n', 3, "quotes"),
        ('question,answer\n"一"二,三\n', 2, "quotes"),
        ("头痛怎么办？,多休息\n发热怎么办？,多喝水\n", 1, "头痛怎么办？, 多休息"),
    ],
)
def test_a_table_whose_rows_cannot_be_told_is_refused_with_its_line(
    table: str, line: int, named: str, tmp_path: Path
) -> None:
    set_language("en")
    path = written(tmp_path, table, "data.csv")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == f"{path}:{line}" and named in caught.value.what and caught.value.remedy


def zipped(*names: str) -> bytes:
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "<a/>")
    return packed.getvalue()


#: name -> (content, what is said, what is to be typed)
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "a.xlsx": (zipped("[Content_Types].xml", "_rels/.rels"), "Excel", "CSV UTF-8"),
    "b.json": (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel", "CSV UTF-8"),
    "old.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "Office", "CSV UTF-8"),
    "a.zip": (zipped("data.json"), "zip", "unzip "),
    "a.json.gz": (gzip.compress(PAIR.encode()), "gzip", "gzip -dc "),
    "a.jsonl": (gzip.compress(PAIR.encode()), "gzip", "gzip -dc "),
    "a.parquet": (b"PAR1" + bytes(200), "parquet", "read_parquet"),
    "a.arrow": (b"ARROW1\0\0" + bytes(200), "Arrow", "to_json"),
    "a.db": (b"SQLite format 3\0" + bytes(200), "SQLite", "CSV"),
    "a.pkl": (b"\x80\x04\x95\x1f\0\0\0\0\0\0\0", "binary", "JSON lines"),
    "zeros.json": (bytes(4096), "binary", "JSON lines"),
    "pointer.json": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git-lfs",
        "git lfs pull",
    ),
    "page.json": (b"\n<!DOCTYPE html>\n<html>", "web page", "raw"),
    "page.txt": (b"\xef\xbb\xbf<html lang='zh'>", "web page", "raw"),
    "notes.md": ("# 常见问题\n\n- 头痛怎么办？\n".encode(), "Markdown", ".txt"),
    "a.yaml": ("- question: 头痛怎么办？\n  answer: 多休息。\n".encode(), "YAML", "yaml"),
    "config.toml": (b"[data]\nquestion = 'a'\n", "configuration", ".txt"),
    "gbk.json": (dumped(ONE).encode("gb18030"), "GB18030", "iconv -f GB18030 -t UTF-8 "),
    "big5.jsonl": (
        "".join(f"{dumped(one)}\n" for one in (TRADITIONAL, TRADITIONAL)).encode("big5"),
        "Big5",
        "iconv -f BIG5",
    ),
    "each line cut in a character.txt": (
        b"".join(line.encode("gbk")[:-1] + b"\n" for line in ("头痛怎么办", "发热怎么办")),
        "GB18030",
        "iconv ",
    ),
    "latin.txt": ("fièvre élevée\ntoux sèche\n".encode("latin-1"), "no encoding that is known", "UTF-8"),
    "gbk.csv": ("question,answer\n头痛,休息\n发热,喝水\n".encode("gb18030"), "GB18030", "iconv "),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("plain_text", [False, True])
def test_what_is_no_text_of_ours_is_named_with_a_way_on(name: str, plain_text: bool, tmp_path: Path) -> None:
    set_language("en")
    content, named, remedy = REFUSED[name]
    path = written(tmp_path, content, name)
    with pytest.raises(DataError) as caught:
        read(path, plain_text=plain_text)
    assert named in caught.value.what and remedy in caught.value.remedy
    assert caught.value.where.startswith(str(path))


def in_columns(orient: str, times: int) -> Any:
    """Return what pandas writes of both records, so many times over, with that `orient`."""
    rows = [ONE, TWO] * times
    by_row = {str(number): row for number, row in enumerate(rows)}
    return {
        "split": {"columns": [*ONE], "index": [*range(len(rows))], "data": [[*row.values()] for row in rows]},
        "columns": {name: {number: row[name] for number, row in by_row.items()} for name in ONE},
        "index": by_row,
        "values": [[*row.values()] for row in rows],
    }[orient]


@pytest.mark.parametrize("times", [1, 2000], ids=["seen whole", "larger than what is looked at"])
@pytest.mark.parametrize("plain_text", [False, True])
@pytest.mark.parametrize("orient", ["split", "columns", "index", "values"])
def test_a_table_that_pandas_did_not_write_as_records_is_named_with_its_orient(
    orient: str, plain_text: bool, times: int, tmp_path: Path
) -> None:
    path = written(tmp_path, dumped(in_columns(orient, times)), "table.jsonl")
    with pytest.raises(DataError, match=f"pandas.*orient='{orient}'") as caught:
        read(path, plain_text=plain_text)
    assert "read_json" in caught.value.remedy and caught.value.where == f"{path}:1"
    assert "table.new.jsonl" in caught.value.remedy, "the file itself would be written over"


def test_a_list_of_records_is_found_behind_what_an_object_says_of_itself(tmp_path: Path) -> None:
    for about in ("schema", "metadata"):
        table = {about: {"fields": [], "version": "1.4.0"}, "data": [ONE, TWO]}
        assert read(written(tmp_path, dumped(table)))[:2] == ("lists", [ONE, TWO])


def test_the_ending_of_a_document_does_not_hide_a_table_or_json(tmp_path: Path) -> None:
    for content in (PAIR, "question,answer\n头痛怎么办？,多休息。\n发热怎么办？,多喝水。\n"):
        assert read(written(tmp_path, content, "data.md"), plain_text=True)[1] == [ONE, TWO]


@pytest.mark.parametrize("name", ["a.json.gz", "gbk.json", "big5.jsonl", "odd name '.jsonl"])
def test_the_command_that_is_proposed_makes_a_file_that_is_read(name: str, tmp_path: Path) -> None:
    content = REFUSED.get(name, (gzip.compress(PAIR.encode()),))[0]
    path = written(tmp_path, content, name)
    with pytest.raises(DataError) as caught:
        read(path)
    subprocess.run(caught.value.remedy, shell=True, check=True, cwd=tmp_path)
    (made,) = set(tmp_path.iterdir()) - {path}
    assert read(made)[1][0] == (TRADITIONAL if name == "big5.jsonl" else ONE)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{\n "question": "一",\n "answer": "二",\n}\n', 4, "delete the comma"),
        ("{\n 'question': 1\n}", 2, "double quotes"),
        ('{\n "question": "一"\n "answer": "二"\n}', 3, "','"),
        ('{"data": [{"question": "一"}], "test": [{"question": "二"}]}', 1, "data, test"),
        ('{"data": [{"question": "一"},\n{"question": }]}', 2, "not valid JSON"),
        ('{"data": [{"question": "一"}]}\n\n x', 3, "more after the end"),
        ("# 说明\n头痛怎么办？\n", 1, "neither JSON nor a table"),
    ],
)
def test_a_file_that_breaks_off_is_refused_at_its_line(
    text: str, line: int, said: str, tmp_path: Path
) -> None:
    set_language("en")
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == f"{path}:{line}" and said in caught.value.what


def test_a_broken_first_line_is_one_bad_record_of_json_lines(tmp_path: Path) -> None:
    broken = dumped(ONE)[:-9]
    layout, values, lines = read(written(tmp_path, f"{broken}\n{PAIR}"))
    assert (layout, values[1:], lines) == ("lines", [ONE, TWO], [1, 2, 3])


def test_a_few_lines_of_another_encoding_are_bad_records_and_the_rest_is_read(tmp_path: Path) -> None:
    gbk = dumped(ONE).encode("gb18030") + b"\n"
    layout, values, _ = read(written(tmp_path, PAIR.encode() + gbk + PAIR.encode()))
    assert layout == "lines" and values[:2] == values[3:] == [ONE, TWO]
    assert "iconv" in values[2]


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


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()) | st.text() | st.none()), st.booleans())
def test_array_elements_come_with_their_values_and_lines(values: list[Any], indented: bool) -> None:
    text = json.dumps(values, indent=1 if indented else None)
    found = list(whole_array(TextWindow(io.BytesIO(text.encode()))))
    assert [item.value for item in found] == values
    lines = text.split("\n")
    for item, value in zip(found, values, strict=True):
        assert json.dumps(value, indent=1)[0] in lines[item.line - 1]


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


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\n", PAIR.encode("utf-16") + b"\0", PAIR.encode("utf-16")[:-1]]
)
def test_utf16_that_breaks_off_is_refused(content: bytes, tmp_path: Path) -> None:
    for plain_text in (False, True):
        with pytest.raises(DataError, match="UTF-16"):
            read(written(tmp_path, content), plain_text=plain_text)


def test_what_is_no_regular_file_is_refused_without_waiting_and_a_file_over_the_limit_is_not_read(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert caught.value.where == str(path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        try:
            file.truncate(MAX_FILE_BYTES + 1)  # sparse: it takes no room
        except OSError:
            pytest.skip("no file may be so large here")
    with pytest.raises(DataError) as refused:
        read(huge)
    assert refused.value.where == str(huge) and refused.value.remedy


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


def test_lists_inside_records_are_no_lists_of_records(tmp_path: Path) -> None:
    records = [{"rows": [{"a": 1}], **ONE}, {"rows": [{"a": 2}], **TWO}]
    path = written(tmp_path, "".join(dumped(record) + "\n" for record in records))
    assert read(path)[:2] == ("lines", records)
    talk = {"data": [{"role": "user", "content": "一"}, {"role": "assistant", "content": "二"}]}
    assert read(written(tmp_path, dumped(talk)))[:2] == ("lines", [talk])
    assert read(written(tmp_path, dumped(talk, 1)))[:2] == ("objects", [talk])
    choice = {"options": [{"key": "A", "value": "是"}], **ONE}
    assert read(written(tmp_path, dumped(choice, 1)))[:2] == ("objects", [choice])


@pytest.mark.parametrize(
    "first", ["{这是什么}", "[急] 头痛怎么办？", "[1] 头痛", '"头痛"怎么办', "头痛,怎么办", "问题：头痛"]
)
def test_a_question_a_line_may_begin_with_anything(first: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{first}\n发热怎么办？\n", "questions.txt")
    assert read(path, plain_text=True) == ("text", [first, "发热怎么办？"], [1, 2])


def test_a_table_may_have_the_other_suffix(tmp_path: Path) -> None:
    assert read(written(tmp_path, "question\tanswer\n一,二\t三\n", "data.csv"))[:2] == (
        "tsv",
        [{"question": "一,二", "answer": "三"}],
    )
    assert read(written(tmp_path, "question,answer\n一,二\n", "data.tsv"))[0] == "csv"


def test_a_table_may_be_larger_than_a_record(tmp_path: Path) -> None:
    rows = MAX_RECORD_BYTES // 1000 + 100
    path = written(tmp_path, "question,answer\n" + f"一,{'a' * 1000}\n" * rows, "data.csv")
    assert len(read(path)[1]) == rows


def test_a_file_that_is_not_there_is_not_laid_to_a_flag_that_a_command_may_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as missing, open_data_file(tmp_path / "none.jsonl"):
        pytest.fail("opened")
    assert missing.value.where.endswith("none.jsonl")
    assert missing.value.remedy == "检查路径"
