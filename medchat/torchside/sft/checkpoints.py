"""Checkpoints of a run on the disk: each appears whole or not at all; which is the newest, which may go.

Written beside its place, each file fsynced, the manifest last, then renamed: a kill at any moment leaves
either the complete folder or remains whose name says so. Standard library only.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medchat.errors import CheckpointError
from medchat.torchside.sft import manifest

FOLDER_NAME = "checkpoints"
_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint of optimizer step `step`."""

    step: int
    folder: Path


@contextmanager
def new_checkpoint(folder: Path, step: int) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder`/step-… when the block ends without an error.

    After an error it is removed. A checkpoint of the same step is replaced.
    """
    folder.mkdir(exist_ok=True)
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}{_PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        manifest.write_manifest(partial, {"step": step})
        _remove(final)
        partial.rename(final)
        manifest.sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def listed(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints by their names, oldest first, unread."""
    found = [(_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    every = [Checkpoint(int(match[1]), path) for match, path in found if match]
    return sorted(every, key=lambda checkpoint: checkpoint.step)


def newest(folder: Path, damaged: list[CheckpointError] | None = None) -> Checkpoint | None:
    """Return the newest checkpoint whose every file is as its manifest says, None if there is none.

    What is wrong with newer ones is added to `damaged`.
    """
    for checkpoint in reversed(listed(folder)):
        try:
            manifest.verify_manifest(checkpoint.folder)
        except CheckpointError as error:
            if damaged is not None:
                damaged.append(error)
        else:
            return checkpoint
    return None


def remove_old(folder: Path, keep: int, best_step: int | None, last_step: int) -> None:
    """Remove all but the newest `keep` checkpoints and that of `best_step`; `last_step` was just written.

    One of a later step is damaged, or the run would have gone on from it: it counts for nothing.
    """
    every = listed(folder)
    usable = [checkpoint for checkpoint in every if checkpoint.step <= last_step]
    for checkpoint in every:
        if checkpoint not in usable[-keep:] and checkpoint.step != best_step:
            _remove(checkpoint.folder)


def _remove(checkpoint: Path) -> None:
    """Rename, then remove: a kill in between must not leave what looks like a damaged checkpoint."""
    if checkpoint.is_dir():
        remains = checkpoint.with_name(f".{checkpoint.name}.old{_PARTIAL}")
        shutil.rmtree(remains, ignore_errors=True)
        checkpoint.rename(remains)
        shutil.rmtree(remains, ignore_errors=True)


def clear_remains(folder: Path) -> None:
    """Remove what a killed run left half-written or half-removed."""
    if folder.is_dir():
        for path in folder.glob(f".*{_PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)
