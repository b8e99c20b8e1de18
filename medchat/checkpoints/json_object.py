"""The JSON object in a small file of a model or adapter folder, whoever wrote it. No torch here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from medchat.checkpoints.read_once import file_bytes
from medchat.checkpoints.weight_files import LFS_POINTER, lfs_pointer
from medchat.errors import CheckpointError
from medchat.language import say

#: Bytes of a configuration or an index: those of the largest published models are a tenth of it.
CONFIG_BYTES = 4 * 2**20
#: Levels of nesting: published files have four.
_DEEPEST = 100


def read_json_object(path: Path, most: int = CONFIG_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file of at most `most` bytes, the caller's to change.

    A byte order mark in front is passed over. Raises CheckpointError naming the line where it is broken.
    """
    try:
        text = file_bytes(path, most).decode("utf-8-sig")
        if text.startswith(LFS_POINTER.decode()):
            raise lfs_pointer(path)
        value = json.loads(text, object_pairs_hook=_no_repeats)
        if not isinstance(value, dict):
            raise ValueError(say("不是 JSON 对象", "not a JSON object"))
        _require_shallow(value)
    except json.JSONDecodeError as error:
        raise broken_json(path, error.msg, f"{path}:{error.lineno}") from None
    except OSError as error:
        raise broken_json(path, error.strerror or type(error).__name__, str(path)) from None
    except UnicodeDecodeError:
        raise broken_json(path, say("不是 UTF-8 文本", "not UTF-8 text"), str(path)) from None
    except (ValueError, RecursionError) as error:
        raise broken_json(path, str(error) or type(error).__name__, str(path)) from None
    return value


def broken_json(path: Path, reason: str, where: str) -> CheckpointError:
    """Return the error for a small file that says nothing usable; `where` may hold the line."""
    return CheckpointError(
        say(f"{path.name} 无法读取（{reason}）", f"{path.name} cannot be read ({reason})"),
        say("文件已损坏或下载不完整，请重新获取", "the file is damaged or incomplete: fetch it again"),
        where=where,
    )


def _require_shallow(value: Any) -> None:
    """Raise ValueError for objects and lists nested too deeply to be shown or compared without recursion's end."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        if not level:
            return
        below: list[Any] = []
        for one in level:
            below += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        level = below
    raise ValueError(say(f"嵌套超过 {_DEEPEST} 层", f"nested more than {_DEEPEST} levels deep"))


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(say(f"“{repeated[:80]}”出现两次", f"{repeated[:80]!r} twice"))
    return table
