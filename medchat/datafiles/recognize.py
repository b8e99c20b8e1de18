"""What a file is by its first bytes: text in some encoding, or something else that has to be converted first.

Each thing that is not read is named, with the command that makes something of it that is.
"""

from __future__ import annotations

import codecs
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medchat.errors import DataError
from medchat.language import say

#: So much of the beginning is looked at.
BEGINNING_BYTES = 1 << 16

_PANDAS = "import sys, pandas; {}.to_json(sys.argv[2], orient='records', lines=True, force_ascii=False)"
_DATASETS = (
    "import sys, datasets; datasets.Dataset.from_file(sys.argv[1]).to_json(sys.argv[2], force_ascii=False)"
)


def beside(path: Path, ending: str) -> str:
    """Return, as it is typed in a shell, another path beside `path` with the last ending replaced."""
    made = path.with_name(path.stem + ending)
    return shlex.quote(str(made if made != path else path.with_name(f"{path.stem}.new{ending}")))


def as_table() -> str:
    """Return the remedy for a file of which no command here makes records."""
    return say(
        "转换成 JSONL 或 CSV（有 question 和 answer 两列）",
        "make it JSON lines or CSV with the columns question and answer",
    )


def _spreadsheet(path: Path) -> str:
    saved = beside(path, ".csv")
    return say(
        f"在表格软件里另存为“CSV UTF-8”，再用 --data {saved}",
        f"save it as 'CSV UTF-8' in the spreadsheet program, then --data {saved}",
    )


def _unpacked(program: str) -> Callable[[Path], str]:
    def remedy(path: Path) -> str:
        ending = path.suffix if path.suffix in (".json", ".jsonl", ".csv", ".tsv", ".txt") else ""
        unpacked = beside(path, f".unpacked{ending}" if ending else "")
        return f"{program} -dc {shlex.quote(str(path))} > {unpacked}"

    return remedy


def _by_python(program: str, needs: str) -> Callable[[Path], str]:
    def remedy(path: Path) -> str:
        command = f'python -c "{program}" {shlex.quote(str(path))} {beside(path, ".jsonl")}'
        return say(f"{command}（先 pip install {needs}）", f"{command} (pip install {needs} first)")

    return remedy


def by_pandas(read: str, *needs: str) -> Callable[[Path], str]:
    """Return what makes, for a path, the command by which pandas reads the file and writes JSON lines beside it."""
    return _by_python(_PANDAS.format(f"pandas.{read}"), " ".join(("pandas", *needs)))


def _by_command(before: str) -> Callable[[Path], str]:
    return lambda path: f"{before} {shlex.quote(str(path))}"


def _fetch_again(path: Path) -> str:
    return say(
        "重新下载原文件（网页上的“下载”或 raw 链接）",
        "fetch the file itself: the page's download or raw link",
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of file that is not read: how it begins, its name, and what to do with it."""

    starts: tuple[bytes, ...]
    zh: str
    en: str
    remedy: Callable[[Path], str]


_KINDS = (
    _Kind(
        (b"\xd0\xcf\x11\xe0",),
        "旧版 Office 文件（如 Excel 的 .xls）",
        "an old Office file (such as Excel's .xls)",
        _spreadsheet,
    ),
    _Kind((b"\x1f\x8b",), "gzip 压缩文件", "a gzip file", _unpacked("gzip")),
    _Kind((b"BZh",), "bzip2 压缩文件", "a bzip2 file", _unpacked("bzip2")),
    _Kind((b"\xfd7zXZ\0",), "xz 压缩文件", "an xz file", _unpacked("xz")),
    _Kind((b"\x28\xb5\x2f\xfd",), "zstd 压缩文件", "a zstd file", _unpacked("zstd")),
    _Kind((b"7z\xbc\xaf\x27\x1c",), "7z 压缩文件", "a 7z archive", _by_command("7z x")),
    _Kind((b"Rar!",), "RAR 压缩文件", "a RAR archive", _by_command("unrar x")),
    _Kind((b"PAR1",), "parquet 文件", "a parquet file", by_pandas("read_parquet(sys.argv[1])", "pyarrow")),
    _Kind((b"ARROW1", b"\xff\xff\xff\xff"), "Arrow 文件", "an Arrow file", _by_python(_DATASETS, "datasets")),
    _Kind((b"SQLite format 3\0",), "SQLite 数据库", "an SQLite database", lambda path: as_table()),
    _Kind((b"{\\rtf",), "RTF 文档", "an RTF document", lambda path: as_table()),
    _Kind((b"Obj\x01",), "Avro 文件", "an Avro file", lambda path: as_table()),
    _Kind((b"%PDF",), "PDF", "a PDF", lambda path: as_table()),
    _Kind(
        (b"version https://git-lfs.github.com/spec/",),
        "git-lfs 的指针，数据本身还没有下载",
        "a git-lfs pointer: the data itself has not been fetched",
        lambda path: say("在那个仓库里运行 git lfs pull", "run git lfs pull in that repository"),
    ),
    _Kind((b"<!doctype", b"<html"), "网页", "a web page", _fetch_again),
    _Kind((b"<?xml",), "XML 文件", "an XML file", lambda path: as_table()),
)
_ZIP = b"PK\x03\x04"


def encoding_of(beginning: bytes, path: Path) -> str:
    """Return "utf-8", or the UTF-16 or UTF-32 that the file is in, by Python's name.

    Raises DataError, with what to do, for what is no text and for text in GB18030, Big5 or an unknown encoding.
    """
    _refuse_known(beginning, path)
    # Without its mark UTF-16 is known by the zero byte of a first ASCII character.
    found = json.detect_encoding(beginning).removesuffix("-sig")
    if found != "utf-8" and _is(beginning, found) and "\0" not in _decoded(beginning, found):
        return found
    if beginning[257:262] == b"ustar":
        raise _no_text(say("tar 归档文件", "a tar archive"), _by_command("tar xf")(path), path)
    if b"\0" in beginning:
        raise _no_text(say("二进制文件", "a binary file"), as_table(), path)
    lines = [line for line in beginning.split(b"\n") if line.strip()]
    others = [line for line in lines if not _is(line, "utf-8")]
    if 2 * len(others) >= len(lines) > 0:  # a few lines of another encoding are bad records
        raise _in_another_encoding(others, path, _first_not_utf8(beginning))
    return "utf-8"


def _refuse_known(beginning: bytes, path: Path) -> None:
    plain = beginning.lstrip(b" \t\r\n\xef\xbb\xbf").lower()
    for kind in _KINDS:
        text = kind.starts[0][:1] == b"<"
        if (plain if text else beginning).startswith(kind.starts):
            raise _no_text(say(kind.zh, kind.en), kind.remedy(path), path)
    if beginning.startswith(_ZIP):
        if b"xl/" in beginning or path.suffix.lower() in (".xlsx", ".xlsm"):
            raise _no_text(say("Excel 工作簿（xlsx）", "an Excel workbook (xlsx)"), _spreadsheet(path), path)
        if b"word/" in beginning:
            raise _no_text(say("Word 文档", "a Word document"), as_table(), path)
        if b"opendocument.spreadsheet" in beginning:
            what = say("OpenDocument 表格（ods）", "an OpenDocument spreadsheet (ods)")
            raise _no_text(what, _spreadsheet(path), path)
        raise _no_text(say("zip 压缩文件", "a zip archive"), _by_command("unzip")(path), path)


def _no_text(what: str, remedy: str, path: Path) -> DataError:
    return DataError(
        say(f"这是{what}，不是文本数据", f"this is {what}, not text"),
        remedy,
        where=str(path),
    )


def _first_not_utf8(beginning: bytes) -> int:
    try:
        _decoded(beginning, "utf-8")
    except UnicodeDecodeError as error:
        return beginning.count(b"\n", 0, error.start) + 1
    return 1


def _in_another_encoding(lines: list[bytes], path: Path, first: int) -> DataError:
    """Return the refusal of a text whose `lines`, the first of them that of this number, are no UTF-8."""
    shares = {codec: codec.common_share(lines) for codec in _CODECS}
    likely = max(_CODECS, key=lambda codec: shares[codec])
    if shares[likely] < _LEAST_SHARE:
        return DataError(
            say("不是 UTF-8 文本，编码不明", "not UTF-8 text, and in no encoding that is known here"),
            say("在编辑器里另存为 UTF-8", "save it as UTF-8 in an editor"),
            where=f"{path}:{first}",
        )
    converted = beside(path, f".utf8{path.suffix}")
    return DataError(
        say(
            f"不是 UTF-8 文本，看起来是 {likely.zh}编码",
            f"not UTF-8 text; it looks like {likely.en}",
        ),
        f"iconv -f {likely.name} -t UTF-8 {shlex.quote(str(path))} > {converted}",
        where=f"{path}:{first}",
    )


@dataclass(frozen=True, slots=True)
class _Codec:
    """An encoding of Chinese, and where its common characters are: in `charset`, behind these first bytes.

    What is in one of them mostly is valid in the other too, as characters that hardly anybody writes.
    """

    name: str
    zh: str
    en: str
    charset: str
    first_bytes: range

    def common_share(self, lines: list[bytes]) -> float:
        """Return which part of the Chinese characters are common ones, 0 if few of the lines are in the encoding."""
        valid = [line for line in lines if _is(line, self.name)]
        if 2 * len(valid) < len(lines):
            return 0.0
        text = "".join(_decoded(line, self.name) for line in valid)
        chinese = [character for character in text if "\u4e00" <= character <= "\u9fff"][:_COUNTED]
        common = sum(one.encode(self.charset, "replace")[0] in self.first_bytes for one in chinese)
        return common / len(chinese) if chinese else 0.0


_CODECS = (
    _Codec("GB18030", "GB18030（GBK）", "GB18030 (GBK)", "gb2312", range(0xB0, 0xD8)),
    _Codec("BIG5-HKSCS", "Big5（繁体）", "Big5", "big5", range(0xA4, 0xC7)),
)
#: Of so many Chinese characters at least this part are common ones in any text.
_COUNTED, _LEAST_SHARE = 2000, 0.4


def _is(line: bytes, encoding: str) -> bool:
    try:
        _decoded(line, encoding)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(text: bytes, encoding: str) -> str:
    """Decode a text whose last character may be cut."""
    return codecs.getincrementaldecoder(encoding)().decode(text)
