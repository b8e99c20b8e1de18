"""The list of a folder's files with sizes and SHA-256: `manifest.json`, as the trainer writes it too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.api import KnownFile
from medchat.checkpoints.manifest import FILE_NAME, FORMAT
from medchat.regular_files import read_json
from medchat.weights.selection import is_plain
from medchat.whole_file import write_whole_file

_LARGEST = 16 << 20


@dataclass(frozen=True, slots=True)
class PullRecord:
    """What a folder held when it was written. `weights` is the name it was pulled by, "" otherwise."""

    files: tuple[KnownFile, ...]
    weights: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_pull_record(
    folder: Path, weights: str, facts: Mapping[str, Any], files: Mapping[str, KnownFile]
) -> None:
    """Write what `folder` holds, whole or not at all."""
    listed = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in sorted(files.items())}
    whole = {"format": FORMAT, "weights": weights, **facts, "files": listed}
    write_whole_file(folder / FILE_NAME, json.dumps(whole, ensure_ascii=False, indent=2) + "\n")


def read_pull_record(folder: Path) -> PullRecord | None:
    """Return what `folder` says of itself, or None if there is no such list, or one of somebody else's."""
    path = folder / FILE_NAME
    try:
        whole = read_json(path, _LARGEST)
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            return None
        files = tuple(
            KnownFile(str(name), int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in whole["files"].items()
            if is_plain(str(name))
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    facts = {key: value for key, value in whole.items() if key not in ("format", "weights", "files")}
    return PullRecord(files, str(whole.get("weights") or ""), facts)
