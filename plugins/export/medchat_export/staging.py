"""Outputs that appear whole or not at all: written beside their place and renamed once they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medchat.plugin_kit import LoadOptions, MedchatError, UsageError, output_error, say

#: Room for what is beside the weights: vocabulary, configuration, card.
_SMALL = 64 << 20


def check_target(output: Path, options: LoadOptions, *, overwrite: bool) -> None:
    """Raise UsageError if `output` is there and not to be overwritten, or holds what is exported."""
    for source in (options.model, *options.adapters):
        if output.resolve() == source.resolve() or output.resolve() in source.resolve().parents:
            raise UsageError(
                say("--output 与要导出的模型是同一处", "--output is where the model to export is"),
                say("换一个 --output", "use another --output"),
                where=str(output),
            )
    empty = output.is_dir() and not any(output.iterdir())
    if os.path.lexists(output) and not empty and not overwrite:
        raise UsageError(
            say("--output 已经存在", "--output is there already"),
            say("换一个 --output，或加上 --overwrite", "use another --output, or add --overwrite"),
            where=str(output),
        )


def check_space(output: Path, size: int) -> None:
    """Raise MedchatError if the disk of `output` has less room than `size` bytes and the small files."""
    place = output.absolute()
    while not place.exists():
        place = place.parent
    needed, free = size + _SMALL, shutil.disk_usage(place).free
    if needed > free:
        raise MedchatError(
            say(
                f"磁盘空间不足：需要约 {needed / 1e9:.1f} GB，剩余 {free / 1e9:.1f} GB",
                f"not enough room: about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            ),
            say("腾出空间，或换一个 --output", "make room, or use another --output"),
            where=str(place),
        )


@contextmanager
def staged(output: Path, *, folder: bool) -> Iterator[Path]:
    """Give a path to write the file, or an empty folder, at; it takes the place of `output` at the end.

    After an error nothing of it is left, and what stood at `output` is as it was. Raises MedchatError if the
    disk refuses it.
    """
    beside = output.with_name(f".{output.name[:40]}.{secrets.token_hex(4)}.partial")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            beside.mkdir()
        yield beside
        _make_readable(beside)
        _replace(beside, output)
    except OSError as error:
        raise output_error(output, error) from error
    finally:
        _remove(beside)


def _make_readable(path: Path) -> None:
    """Give files the mode that the umask gives: some writers make them for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            file.chmod(0o666 & ~mask)
            _sync(file)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(beside: Path, output: Path) -> None:
    if not beside.is_dir() and not output.is_dir():
        beside.replace(output)
        return
    before = output.with_name(f"{beside.name}.before")
    if os.path.lexists(output):
        output.rename(before)
    try:
        beside.rename(output)
    except BaseException:
        if os.path.lexists(before):
            before.rename(output)
        raise
    _remove(before)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
