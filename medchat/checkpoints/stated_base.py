"""Which model an adapter of our own trainer states that it was trained on, and whether this is it. No torch here.

Its adapter_config.json has the name of the model's folder, run.json beside it a fingerprint of the folder's
content. Folders are renamed and copied, and gain files: where either agrees it is that model. Adapters from
elsewhere hold a path of the machine that trained them, where anything (docs/specs/models.md, "Adapters").
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medchat.checkpoints.json_object import CONFIG_BYTES
from medchat.checkpoints.read_once import VOCABULARY_BYTES, file_bytes, read_once
from medchat.language import say
from medchat.regular_files import UNLIMITED, open_regular, read_json

#: What a run of our own trainer leaves beside its result.
RUN_RECORD = "run.json"
#: So much of each end of a model's file goes into its fingerprint.
_SAMPLED = 1 << 16


class StatesBase(Protocol):
    """An adapter of any kind, and the name of the base that it states."""

    @property
    def folder(self) -> Path:
        """Its folder."""
        ...

    @property
    def base(self) -> str:
        """The name of the base's folder, "" where none is stated."""
        ...


def stated_base_note(adapter: StatesBase, model: Path) -> str:
    """Return what the adapter states of its base, as a warning where `model` is another; "" where it states nothing."""
    stated = adapter.base[:80]
    if not stated:
        return ""
    name = adapter.folder.resolve().name
    if stated in (model.name, model.resolve().name) or fingerprint_of_models([model]) == recorded_model(
        adapter.folder
    ):
        return say(
            f"适配器 {name} 写明是在 {stated} 上训练的",
            f"adapter {name} states that it was trained on {stated}",
        )
    return say(
        f"！适配器 {name} 写明是在 {stated} 上训练的，现在的模型是 {model.resolve().name}，回答可能没有意义",
        f"! adapter {name} states that it was trained on {stated}, and this model is {model.resolve().name}: its"
        " answers may make no sense",
    )


def fingerprint_of_models(folders: Sequence[Path]) -> str:
    """Return what stays the same when model folders are moved, and differs for other models.

    From the names and sizes of the files and both ends of each, so that no weights need be read whole.
    """
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(b"\0folder\0")
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                size = path.stat().st_size
                digest.update(f"{path.name}\0{size}\0".encode())
                for part in read_once(_both_ends, path):
                    digest.update(part)
    return digest.hexdigest()


def _both_ends(path: Path) -> tuple[bytes, bytes]:
    if (
        path.suffix == ".json" and path.stat().st_size <= VOCABULARY_BYTES
    ):  # read whole by whoever loads the model
        content = file_bytes(path, VOCABULARY_BYTES)
        return content[:_SAMPLED], content[max(0, len(content) - _SAMPLED) :]
    with open_regular(path, most=UNLIMITED) as file:
        start = file.read(_SAMPLED)
        file.seek(max(0, path.stat().st_size - _SAMPLED))
        return start, file.read()


def recorded_model(folder: Path) -> str:
    """Return the fingerprint of what the run in `folder` trained, "" if there is no record that can be read."""
    try:
        run = read_json(folder / RUN_RECORD, CONFIG_BYTES)
    except (OSError, ValueError):
        return ""
    found = run.get("model") if isinstance(run, dict) else None
    return found if isinstance(found, str) else ""
