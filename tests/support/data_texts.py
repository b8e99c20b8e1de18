"""Two records, and how the tests of data files write and read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medchat.datafiles.data_file import open_data_file
from medchat.datafiles.fields import is_field

ONE = {"question": "头痛怎么办？", "answer": "多休息。"}
TWO = {"question": "发热怎么办？", "answer": "多喝水。"}


def dumped(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def read(path: Path, *, plain_text: bool = False) -> tuple[str, list[Any], list[int]]:
    """Return the layout, the values and the lines they are on; a bad line's value is its problem."""
    with open_data_file(path, plain_text=plain_text, is_known=is_field) as file:
        items = list(file.items())
        return file.layout, [item.problem or item.value for item in items], [item.line for item in items]


def written(folder: Path, content: str | bytes, name: str = "data.json") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


PAIR = f"{dumped(ONE)}\n{dumped(TWO)}\n"
