"""A file that cannot be read is named for what it is, with a way on."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from data_texts import ONE, PAIR, TWO, dumped, read, written

from medchat.datafiles.data_file import MAX_FILE_BYTES, open_data_file
from medchat.errors import CheckpointError, DataError
from medchat.language import set_language

TRADITIONAL = {"question": "頭痛怎麼辦？", "answer": "多休息，多喝水，還痛就去醫院。"}


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


def test_a_file_that_is_not_there_is_not_laid_to_a_flag_that_a_command_may_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as missing, open_data_file(tmp_path / "none.jsonl"):
        pytest.fail("opened")
    assert missing.value.where.endswith("none.jsonl")
    assert missing.value.remedy == "检查路径"
