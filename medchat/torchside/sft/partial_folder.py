"""A folder that appears whole or not at all: filled beside its place, fsynced, renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medchat.errors import UsageError
from medchat.language import say


def refuse_existing(output: Path) -> None:
    """Raise UsageError if something is at `output` that writing there would destroy."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(
            say(f"输出位置 {output} 已经有内容，不会覆盖它", f"{output} already holds something; it is kept"),
            say("请换一个 --output，或先把它移走", "choose another --output, or move it away first"),
            where=str(output),
        )


@contextmanager
def partial_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder beside `output`, which becomes `output` when the block ends without an error.

    After an error it is removed. What a killed run left behind is removed by the next run with the same
    output; two such runs at once are refused. Raises UsageError (see `refuse_existing`).
    """
    output = output.absolute()
    refuse_existing(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.partial"
    lock = output.parent / f".{output.name}.lock"
    with lock.open("w") as held:
        _hold(held.fileno(), output)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            _sync(partial)
            refuse_existing(output)
            partial.rename(output)
            _sync_one(output.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _hold(lock: int, output: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(
            say(f"另一个训练正在写入 {output}", f"another run is writing to {output}"),
            say("请等它结束，或换一个 --output", "wait for it, or choose another --output"),
            where=str(output),
        ) from None


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
