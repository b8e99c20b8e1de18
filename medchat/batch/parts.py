"""The files of one run: the result file, and a part for each process where there are several.

Process N appends to `OUTPUT.part-N` and holds it while it lives; the first process waits until the parts
together answer everything, writes the result file in order and removes the parts, which is how the
others know that they may end. No process needs a word from another to begin: each looks after its own part.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from medchat.api import Finish
from medchat.batch.result_file import (
    ResultFile,
    in_use,
    is_held,
    remove_unless_held,
    replacement_path,
)
from medchat.batch.results import Line, bytes_in, file_error, in_order, read_results, write_whole
from medchat.batch.waiting import Beat, Presence, Wait
from medchat.errors import UsageError
from medchat.language import say
from medchat.launcher import Process

#: Seconds between two looks at the other processes' parts.
POLL_SECONDS = 0.2


def part_path(output: Path, rank: int) -> Path:
    """Return where process `rank` writes."""
    return output.with_name(f"{output.name}.part-{rank}")


def part_paths(output: Path) -> dict[int, Path]:
    """Return the parts that are there, by rank. Raises MedchatError if the folder cannot be listed."""
    named = re.compile(re.escape(output.name) + r"\.part-(\d+)")
    try:
        found = [(named.fullmatch(path.name), path) for path in output.parent.iterdir()]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise file_error(output.parent, error) from error
    return {int(match[1]): path for match, path in found if match}


@dataclass
class Outputs:
    """What this process writes, and what is already written. Open it with `open_outputs`; close it."""

    output: Path
    process: Process
    own: ResultFile
    #: The lines of earlier runs, whichever file they are in; none where this run starts afresh.
    earlier: tuple[Line, ...]
    resumed: bool
    #: Whether answers of an earlier run may still stand there, to go once this run has some of its own.
    keeps_earlier: bool = False
    _sleep: Callable[[float], None] = field(default=time.sleep)
    _beat: Beat | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.process.alone:
            self._beat = Beat(self.own.path)

    @property
    def done(self) -> set[int]:
        """The questions that need no more work.

        A failure in the result file is tried again; one in a part is not while there are several
        processes, since then nobody can tell a failure of this run from one before it.
        """
        if self.resumed and not self.process.alone:
            return self._covered()
        return {line.index for line in in_order(self.earlier) if line.answered}

    @property
    def torn(self) -> int:
        """How many bytes of a torn line were cut off."""
        return self.own.written.torn

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, safely stored before this returns; the first answer takes the place of an earlier run's."""
        self.own.append(rows)
        if any(row["finish"] != Finish.ERROR for row in rows):
            self._drop_earlier()

    def _drop_earlier(self) -> None:
        self.own.take_place()
        if self.keeps_earlier and self.process.leads:
            _clear(self.output, self.own.path)
        self.keeps_earlier = False

    def stored(self) -> int:
        """Return how many questions have an answer on disk now, in whichever file."""
        return sum(line.answered for line in in_order(_every_line(self.output)))

    def finish(self, indexes: set[int], tell: Callable[[str], None]) -> list[Line]:
        """Wait until `indexes` all have a line, and leave the result file in order. Return its lines.

        Only the first process writes; the others wait until it has. `tell` is given what to say where one of
        them is not there. Raises MedchatError if it does not come, or has ended before its work was done.
        """
        self._drop_earlier()
        wait, presence = Wait(tell), Presence(partial(part_path, self.output))
        if not self.process.leads:
            self._wait_for_the_first(indexes, wait, presence)
            return []
        if not self.process.alone:
            self._wait_for_the_others(indexes, wait, presence)
        lines = in_order(_every_line(self.output))
        write_whole(self.output, lines)
        for _, path in sorted(part_paths(self.output).items(), reverse=True):
            path.unlink(missing_ok=True)
        return lines

    def close(self) -> None:
        """Let the own file go; an empty part is removed."""
        if self._beat:
            self._beat.stop()
        if self.own.path != self.output and self.own.is_empty and not self.own.replaces:
            self.own.path.unlink(missing_ok=True)
        self.own.close()

    def _wait_for_the_others(self, indexes: set[int], wait: Wait, presence: Presence) -> None:
        missing = -1
        while True:
            looked = time.monotonic()
            left = len(indexes - self._covered())
            if not left:
                return
            absent = presence.absent(range(1, self.process.world_size))
            if left != missing or not absent:
                missing = left
                wait.begin()
            wait.check(absent)
            self._sleep(max(POLL_SECONDS, 5 * (time.monotonic() - looked)))

    def _covered(self) -> set[int]:
        done = {line.index for line in read_results(self.output).lines if line.answered}
        for path in part_paths(self.output).values():
            # Looked at first: once that file has gone, it is in the part's place.
            if not is_held(replacement_path(path)):
                done |= {line.index for line in read_results(path).lines}
        return done

    def _wait_for_the_first(self, indexes: set[int], wait: Wait, presence: Presence) -> None:
        while self.own.is_there:
            if not presence.absent([0]):
                wait.begin()
            elif self.resumed and indexes <= {line.index for line in read_results(self.output).lines}:
                return  # it had ended before this process began: nothing was missing but its own share
            wait.check([0])
            self._sleep(POLL_SECONDS)


def look_at_outputs(output: Path, *, resume: bool, overwrite: bool) -> tuple[Line, ...]:
    """Return what `open_outputs` would find there, opening and changing nothing. Raises what it raises."""
    if not resume and not overwrite:
        refuse_what_is_there(output)
    return tuple(_every_line(output)) if resume else ()


def open_outputs(output: Path, process: Process, *, resume: bool, overwrite: bool) -> Outputs:
    """Open this process's file. Raises UsageError if answers are there and neither flag says what of them."""
    own_path = output if process.alone else part_path(output, process.rank)
    _refuse_other_runs(output, process)
    if resume:
        own = ResultFile.open(own_path)
        _refuse_other_runs(output, process)
        return Outputs(output, process, own, tuple(_every_line(output)), resumed=True)
    if not overwrite:
        refuse_what_is_there(output, own_path)
    own = ResultFile.open(own_path, overwrite=overwrite)
    if process.leads and not overwrite:
        refuse_what_is_there(*(path for path in part_paths(output).values() if not is_held(path)))
        _clear(output, own_path)
    return Outputs(output, process, own, (), resumed=False, keeps_earlier=overwrite)


def _every_line(output: Path) -> Iterator[Line]:
    """Yield the lines of the result file, then those of the parts: the later one counts."""
    yield from read_results(output).lines
    for _, path in sorted(part_paths(output).items()):
        yield from read_results(path).lines


def _refuse_other_runs(output: Path, process: Process) -> None:
    if process.alone and any(is_held(path) for path in part_paths(output).values()):
        raise in_use(output)


def refuse_what_is_there(*paths: Path) -> None:
    """Raise UsageError where one of the files holds anything: neither --resume nor --overwrite was given."""
    for path in paths:
        if bytes_in(path):
            raise UsageError(
                say("结果文件里已经有结果", "the result file already holds results"),
                say(
                    "用 --resume 继续，或用 --overwrite 重新开始",
                    "continue with --resume, or start over with --overwrite",
                ),
                where=str(path),
            )


def _clear(output: Path, own: Path) -> None:
    """Remove what an earlier run left; what a living process of this run holds stays."""
    for path in part_paths(output).values():
        if path != own:
            remove_unless_held(path)
    if own != output:
        output.unlink(missing_ok=True)
