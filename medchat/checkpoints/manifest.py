"""The list of a folder's files with their sizes and SHA-256, written last: without it a folder is incomplete.

Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from medchat.errors import CheckpointError
from medchat.hashing import sha256_of
from medchat.language import say
from medchat.regular_files import read_json
from medchat.whole_file import sync, write_whole_file

FILE_NAME = "manifest.json"
FORMAT = "medchat-checkpoint-1"
#: The limit of a manifest in bytes: it has one line per file, and a result's has its samples too.
MOST_BYTES = 64 * 2**20


def write_manifest(folder: Path, facts: Mapping[str, Any], leave_out: Collection[str] = ()) -> None:
    """Write the manifest of every file in `folder`, and fsync all of them.

    `facts` (JSON values) are added; entries of `folder` named in `leave_out` are not listed. The manifest
    itself is written atomically. Raises OSError.
    """
    files = {}
    for path in _files(folder, {FILE_NAME, *leave_out}):
        sync(path)
        size = path.stat().st_size
        files[str(path.relative_to(folder))] = {"bytes": size, "sha256": sha256_of(path)}
    text = json.dumps({"format": FORMAT, **facts, "files": files}, ensure_ascii=False, indent=2)
    write_whole_file(folder / FILE_NAME, text + "\n")


def verify_manifest(
    folder: Path, *, read_up_to: int | None = None, but_for: re.Pattern[str] | None = None
) -> dict[str, Any]:
    """Check every listed file except names that match `but_for`, and return the manifest.

    Of files of more than `read_up_to` bytes only the size is compared; None: every file is read. Raises
    CheckpointError if the manifest is missing or unreadable, or a file is missing or changed.
    """
    path = folder / FILE_NAME
    try:
        manifest: dict[str, Any] = read_json(path, MOST_BYTES)
        listed = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            say("检查点清单缺失或无法读取", "the checkpoint's manifest is missing or cannot be read"),
            say("这次训练没有写完，请重新训练", "the run did not finish writing; train again"),
            where=str(path),
        ) from error
    for name, (size, digest) in listed.items():
        if but_for and but_for.fullmatch(name):
            continue
        file = folder / name
        read = read_up_to is None or size <= read_up_to
        if not file.is_file() or file.stat().st_size != size or (read and sha256_of(file) != digest):
            raise CheckpointError(
                say(f"文件 {name} 缺失或与清单不符", f"{name} is missing or not what the manifest says"),
                say("请重新复制整个目录，或重新训练", "copy the whole folder again, or train again"),
                where=str(file),
            )
    return manifest


def _files(folder: Path, leave_out: Collection[str]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in leave_out:
            continue
        if entry.is_dir():
            yield from sorted(path for path in entry.rglob("*") if path.is_file())
        else:
            yield entry
