"""The list of a checkpoint's files with their sizes and SHA-256, written last: no manifest, not whole.

Standard library only; knows nothing of what the files hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medchat.errors import CheckpointError
from medchat.language import say

FILE_NAME = "manifest.json"
FORMAT = "medchat-checkpoint-1"


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Describe every file of `folder` as it is now. `facts` (JSON values) says what made them."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }
    text = json.dumps({"format": FORMAT, **facts, "files": files}, ensure_ascii=False, indent=2)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Check every listed file and return the manifest.

    Raises CheckpointError if the manifest is missing or unreadable, or a file is missing or changed.
    """
    path = folder / FILE_NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        listed = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            say("检查点清单缺失或无法读取", "the checkpoint's manifest is missing or cannot be read"),
            say("这次训练没有写完，请重新训练", "the run did not finish writing; train again"),
            where=str(path),
        ) from error
    for name, (size, digest) in listed.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size or _sha256(file) != digest:
            raise CheckpointError(
                say(f"文件 {name} 缺失或与清单不符", f"{name} is missing or not what the manifest says"),
                say("请重新复制整个文件夹，或重新训练", "copy the whole folder again, or train again"),
                where=str(file),
            )
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
