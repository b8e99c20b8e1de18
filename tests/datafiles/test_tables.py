"""Tables as spreadsheet programs of other countries and ages write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medchat.batch import read_questions
from medchat.errors import DataError
from medchat.sft_job.data import read_training_data

TABLES = {
    "semicolons": "question;answer\n头痛？;休息，喝水。\n咳嗽？;喝水。\n",
    "sep=;": "sep=;\nquestion;answer\n头痛？;休息，喝水。\n咳嗽？;喝水。\n",
    "sep=,": 'sep=,\nquestion,answer\n头痛？,"休息，喝水。"\n咳嗽？,喝水。\n',
    "SEP with tabs": "SEP=\t\r\nquestion\tanswer\r\n头痛？\t休息，喝水。\r\n咳嗽？\t喝水。\r\n",
    "commas at the end of rows": "question,answer\n头痛？,休息，喝水。,,\n咳嗽？,喝水。,\n",
    "commas at the end of all": "question,answer,,\n头痛？,休息，喝水。,,\n咳嗽？,喝水。,,\n",
    "blank lines first": "\n\nquestion,answer\n头痛？,休息，喝水。\n\n咳嗽？,喝水。\n",
    "semicolons in a text": 'question,answer\n头痛？,"休息，喝水。"\n咳嗽？,喝水。\n',
}


@pytest.mark.parametrize("suffix", [".csv", ".txt", ""])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_read_by_its_columns(tmp_path: Path, table: str, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_text(TABLES[table], encoding="utf-8", newline="")
    read = read_training_data(path)
    assert [(example.question, example.answer) for example in read.examples] == [
        ("头痛？", "休息，喝水。"),
        ("咳嗽？", "喝水。"),
    ]
    assert [question.text for question in read_questions(path).questions] == ["头痛？", "咳嗽？"]


@pytest.mark.parametrize("head", ["病人,医生", "q,a", "id,Source,Target"])
def test_a_table_may_name_its_columns_after_the_two_sides(tmp_path: Path, head: str) -> None:
    path = tmp_path / "data.csv"
    first = "1," * head.startswith("id")
    path.write_text(f"{head}\n{first}头痛？,休息。\n", encoding="utf-8")
    (example,) = read_training_data(path).examples
    assert (example.question, example.answer) == ("头痛？", "休息。")


def test_a_question_that_addresses_a_doctor_heads_no_table(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("医生,我头痛怎么办？\n病人,医生\n", encoding="utf-8")
    assert [question.text for question in read_questions(path).questions] == [
        "医生,我头痛怎么办？",
        "病人,医生",
    ]


def test_a_cell_with_something_in_it_beyond_the_columns_is_a_bad_record(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("question,answer\n头痛？,休息,,吃药\n", encoding="utf-8")
    with pytest.raises(DataError, match="4 格"):
        read_training_data(path)


def test_lines_of_old_macs_are_called_so_with_a_command_that_mends_them(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes("question,answer\r头痛？,休息\r".encode())
    with pytest.raises(DataError, match="CR") as caught:
        read_training_data(path)
    assert caught.value.remedy.startswith("tr '\\r' '\\n'")


@pytest.mark.parametrize(
    ("beginning", "called"),
    [
        (b"{\\rtf1\\ansi", "RTF"),
        (b"Obj\x01\x04\x16avro.schema", "Avro"),
        (b"data.json".ljust(257, b"\0") + b"ustar\x0000", "tar"),
        (b"PK\x03\x04\x14\0word/document.xml", "Word"),
        (b"PK\x03\x04\x14\0mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "OpenDocument"),
    ],
)
def test_more_files_that_are_no_text_are_called_by_their_names(
    tmp_path: Path, beginning: bytes, called: str
) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(beginning)
    for read in (read_training_data, read_questions):
        with pytest.raises(DataError, match=called) as caught:
            read(path)
        assert caught.value.remedy
