"""Prints the overview of a run: plain lines to a pipe or file, colour on a terminal that supports it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TextIO

from medchat.cli.output import aligned
from medchat.commands.sft.overview import (
    disk_lines,
    marked_preview,
    memory_lines,
    preview_legend,
    preview_text,
    settings_lines,
    survey_lines,
)
from medchat.commands.sft.prepare import PreparedRun
from medchat.language import say
from medchat.sanitize import sanitize_line

#: The number of bad records that are named.
_NAMED = 10
_STYLES = {"learned": "bold green", "special": "dim", "": ""}


def show_overview(prepared: PreparedRun, stream: TextIO, write: Callable[[str], object]) -> None:
    """Show settings, data, truncation, the first example with its labels, and memory.

    `write` prints one line; `stream` is its stream, which decides on colour.
    """
    for line in (*settings_lines(prepared.plan.settings), "", *_data_lines(prepared)):
        write(line)
    if prepared.survey:
        for line in survey_lines(prepared.survey):
            write(line)
        _show_preview(prepared, stream, write)
    write("")
    if prepared.memory:
        for line in memory_lines(prepared.memory):
            write(line)
    else:
        write(say("内存估计：这个方法无法估计", "Memory estimate: this method cannot give one"))
    if prepared.disk:
        for line in disk_lines(prepared.disk):
            write(line)


def _data_lines(prepared: PreparedRun) -> Iterator[str]:
    yield say("数据", "Data")
    for file in prepared.files:
        bad = say(f"，跳过 {len(file.bad)} 条", f", {len(file.bad)} left out") if file.bad else ""
        records = say(f"{file.records} 条{bad}", f"{file.records} records{bad}")
        yield from aligned([(sanitize_line(file.path.name, 80), file.described, records)])
        for remark in prepared.data_remarks(file):
            yield f"    {remark}"
        for record in file.bad[:_NAMED]:
            yield f"    {sanitize_line(record.where)}: {sanitize_line(record.reason)}"
    train, held_out = len(prepared.data.train), len(prepared.data.held_out)
    yield "  " + say(f"训练 {train} 条，留作评估 {held_out} 条", f"{train} to train on, {held_out} held out")


def _show_preview(prepared: PreparedRun, stream: TextIO, write: Callable[[str], object]) -> None:
    pieces = prepared.survey.preview if prepared.survey else ()
    if not pieces:
        return
    colour = stream.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
    write("")
    write(preview_legend(colour=colour))
    if not colour:
        write(marked_preview(pieces))
        return
    from rich.console import Console
    from rich.text import Text

    text = Text()
    for piece, style in preview_text(pieces):
        text.append(piece, _STYLES[style])
    Console(file=stream, highlight=False).print(text, soft_wrap=True)
