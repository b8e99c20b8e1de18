"""What a data file is, is told from its bytes: each form that can be read is read, with the line of each record."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from data_texts import ONE, PAIR, TWO, dumped, read, written
from hypothesis import given
from hypothesis import strategies as st

from medchat.datafiles.json_values import TextWindow, whole_array
from medchat.errors import DataError
from medchat.language import set_language

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


def test_a_list_of_records_is_found_behind_what_an_object_says_of_itself(tmp_path: Path) -> None:
    for about in ("schema", "metadata"):
        table = {about: {"fields": [], "version": "1.4.0"}, "data": [ONE, TWO]}
        assert read(written(tmp_path, dumped(table)))[:2] == ("lists", [ONE, TWO])


def test_the_ending_of_a_document_does_not_hide_a_table_or_json(tmp_path: Path) -> None:
    for content in (PAIR, "question,answer\n头痛怎么办？,多休息。\n发热怎么办？,多喝水。\n"):
        assert read(written(tmp_path, content, "data.md"), plain_text=True)[1] == [ONE, TWO]


def test_a_broken_first_line_is_one_bad_record_of_json_lines(tmp_path: Path) -> None:
    broken = dumped(ONE)[:-9]
    layout, values, lines = read(written(tmp_path, f"{broken}\n{PAIR}"))
    assert (layout, values[1:], lines) == ("lines", [ONE, TWO], [1, 2, 3])


def test_a_few_lines_of_another_encoding_are_bad_records_and_the_rest_is_read(tmp_path: Path) -> None:
    gbk = dumped(ONE).encode("gb18030") + b"\n"
    layout, values, _ = read(written(tmp_path, PAIR.encode() + gbk + PAIR.encode()))
    assert layout == "lines" and values[:2] == values[3:] == [ONE, TWO]
    assert "iconv" in values[2]


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()) | st.text() | st.none()), st.booleans())
def test_array_elements_come_with_their_values_and_lines(values: list[Any], indented: bool) -> None:
    text = json.dumps(values, indent=1 if indented else None)
    found = list(whole_array(TextWindow(io.BytesIO(text.encode()))))
    assert [item.value for item in found] == values
    lines = text.split("\n")
    for item, value in zip(found, values, strict=True):
        assert json.dumps(value, indent=1)[0] in lines[item.line - 1]


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
