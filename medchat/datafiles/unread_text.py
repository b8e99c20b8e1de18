"""Text files that hold no records as they stand: JSON in columns, YAML, Markdown. Each is named with a remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.datafiles.recognize import as_table, by_pandas
from medchat.errors import DataError
from medchat.language import say

#: How each `orient` of pandas begins where the value itself continues beyond what is looked at.
_BEGINNINGS = {
    "split": re.compile(r'\{\s*"columns"\s*:\s*\['),
    "index": re.compile(r'\{\s*"\d+"\s*:\s*\{\s*"'),
    "columns": re.compile(r'\{\s*"[^"\\]*"\s*:\s*\{\s*"\d+"\s*:'),
    "values": re.compile(r"\[\s*\[\s*[^\[{\]]"),
}
#: Cells of a row that is a question and its answer.
_PAIR = 2
_SPLIT = {"columns", "data"}
_OF_SPLIT = _SPLIT | {"index", "index_names", "column_names"}


def refuse_columns(start: str, path: Path) -> None:
    """Raise DataError if a text that begins with `start` is a table that pandas wrote otherwise than as records."""
    orient, width = _orient_of(start)
    if not orient:
        return
    what = say(
        f"这是 pandas 以 orient='{orient}' 写出的表，里面没有一条条的记录",
        f"this is a table as pandas writes it with orient='{orient}': it holds no records",
    )
    remedy = by_pandas(f"read_json(sys.argv[1], orient='{orient}')")(path)
    if orient == "values":
        what = say(
            "每条记录是一列没有名称的值（如 pandas 的 orient='values'）",
            "each record is a row of values without names (as pandas writes with orient='values')",
        )
        named = "read_json(sys.argv[1]).set_axis(['question', 'answer'], axis=1)"
        remedy = by_pandas(named)(path) if width == _PAIR else as_table()
    raise DataError(what, remedy, where=f"{path}:1")


def _orient_of(start: str) -> tuple[str, int]:
    """Return the `orient` of such a table and, of rows without names, the cells of the first; "" for other texts."""
    try:
        value, _ = json.JSONDecoder().raw_decode(start)
    except RecursionError:
        return "", 0
    except ValueError:
        found = next((orient for orient, shape in _BEGINNINGS.items() if shape.match(start)), "")
        return found, _first_width(start) if found == "values" else 0
    if isinstance(value, list):
        rows = value if all(isinstance(row, list) and _are_scalars(row) for row in value) else []
        return ("values", len(rows[0])) if len(rows) > 1 or (rows and rows[0]) else ("", 0)
    return (_orient_of_object(value), 0) if isinstance(value, dict) else ("", 0)


def _orient_of_object(value: dict[str, Any]) -> str:
    if _SPLIT <= value.keys() <= _OF_SPLIT and isinstance(value["columns"], list):
        rows = value["data"]
        return "split" if isinstance(rows, list) and all(isinstance(row, list) for row in rows) else ""
    inner = list(value.values())
    if not inner or not all(isinstance(one, dict) and one.keys() == inner[0].keys() for one in inner):
        return ""
    if all(map(str.isdecimal, value)):
        return "index"
    return "columns" if inner[0] and all(map(str.isdecimal, inner[0])) else ""


def _are_scalars(row: list[Any]) -> bool:
    return not any(isinstance(cell, (list, dict)) for cell in row)


def _first_width(start: str) -> int:
    try:
        return len(json.JSONDecoder().raw_decode(start, start.index("[", 1))[0])
    except (ValueError, RecursionError):
        return 0


@dataclass(frozen=True, slots=True)
class _Document:
    """A kind of text that is written for people or programs: its name, and what to do with it."""

    zh: str
    en: str
    remedy: Callable[[Path], str]


def _one_a_line(path: Path) -> str:
    return say(
        "问题每行一个，存成 .txt；问答存成 CSV 或 JSONL（有 question 和 answer 两列）",
        "keep questions one a line in a .txt; questions and answers as CSV or JSON lines"
        " with the columns question and answer",
    )


_MARKDOWN = _Document("Markdown 文档", "a Markdown document", _one_a_line)
_YAML = _Document(
    "YAML 文件",
    "a YAML file",
    by_pandas("DataFrame(__import__('yaml').safe_load(open(sys.argv[1], 'rb')))", "pyyaml"),
)
_CODE = _Document("程序或配置文件", "a program or a configuration file", _one_a_line)
_MARKED_UP = _Document("排版文档", "a document with markup", _one_a_line)
_DOCUMENTS = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), _MARKDOWN),
    **dict.fromkeys((".yaml", ".yml"), _YAML),
    **dict.fromkeys((".py", ".ipynb", ".sh", ".js", ".toml", ".ini", ".cfg", ".conf"), _CODE),
    **dict.fromkeys((".rst", ".tex", ".bib", ".srt", ".vtt"), _MARKED_UP),
}


def is_document(path: Path) -> bool:
    """Whether the ending of `path` promises a text of one of these kinds."""
    return path.suffix.lower() in _DOCUMENTS


def refuse_document(path: Path) -> None:
    """Raise DataError for such a file."""
    if kind := _DOCUMENTS.get(path.suffix.lower()):
        raise DataError(
            say(f"这是{_apart(kind.zh)}，不是数据", f"this is {kind.en}, not data"),
            kind.remedy(path),
            where=str(path),
        )


def _apart(name: str) -> str:
    return f" {name}" if name[0].isascii() else name
