"""Outputs that appear whole or not at all: written beside their place and renamed once they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medchat.plugin_kit import (
    LoadOptions,
    MedchatError,
    UsageError,
    free_space,
    output_error,
    say,
    staged_output,
)

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
    needed, (place, free) = size + _SMALL, free_space(output)
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
def staged(output: Path, *, folder: bool, overwrite: bool) -> Iterator[Path]:
    """Yield a path to write the file, or an empty folder, at; see `staged_output`.

    Raises MedchatError if the disk refuses it.
    """
    try:
        with staged_output(output, folder=folder, replace=overwrite) as place:
            yield place
    except OSError as error:
        raise output_error(output, error) from error
