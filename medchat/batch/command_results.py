"""The result file of a plugin's command: lines that are on disk as soon as they are added, whatever is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medchat.batch.parts import refuse_what_is_there
from medchat.batch.result_file import ResultFile
from medchat.batch.results import in_order, read_results, write_whole
from medchat.errors import UsageError
from medchat.language import say
from medchat.user_paths import user_path
from medchat.whole_file import check_output_file


class Results:
    """A result file that is open: `append` a line for each piece of work, leave out what is `done`."""

    def __init__(self, file: ResultFile) -> None:
        self._file = file
        #: The lines of an earlier run, the last one of each `index`.
        self.rows: Mapping[int, Mapping[str, Any]] = {
            line.index: line.row for line in in_order(file.written.lines)
        }
        #: The `index` of each line of an earlier run that need not be made again (`finish` is not "error").
        self.done: frozenset[int] = frozenset(
            line.index for line in in_order(file.written.lines) if line.answered
        )

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line, safely stored before this returns.

        `row` is what JSON can hold, with a whole number as `index`: the place of the piece of work, by which
        lines are put in order and `done` is told. A later line of the same index takes the place of an earlier
        one. Raises what `extend` raises.
        """
        self.extend([row])

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add several lines, as `append` does, in one write: after a kill all of them are there or the first ones.

        Raises UsageError for a row without an index, MedchatError if the disk refuses them; nothing of them
        is kept then.
        """
        if not all(type(row.get("index")) is int for row in rows):
            raise UsageError(
                say("结果行没有整数 index", "a result row has no whole number as its index"),
                say("这是插件的问题，请告知其作者", "a defect of the plugin: tell its author"),
            )
        if rows:
            self._file.append(rows)
            self._file.take_place()


@contextmanager
def open_results(
    path: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Mapping[str, Path] = MappingProxyType({}),
) -> Iterator[Results]:
    """Open the result file of a command for as long as it works: `with open_results(output) as results:`.

    The file (JSON lines, mode 0600) is held by this process alone. Where it holds lines already, `resume`
    continues with them, `overwrite` puts the new file in their place once it has a line; neither is refused.
    A line that a kill tore is cut off. `inputs` are the files that the command reads, by what its user calls
    them (`--data`): none of them is written over. At the end the lines are put in the order of their index;
    after an error or a signal they stay as they came, and `resume` continues.

    Raises UsageError (both flags or neither where there are lines, another process holds it, one of `inputs`, no
    ordinary file), DataError for a file whose lines are no results, MedchatError where it cannot be read or written.
    """
    if resume and overwrite:
        raise UsageError(
            say("--resume 和 --overwrite 只能用一个", "use only one of --resume and --overwrite"),
            say("继续用 --resume，重新开始用 --overwrite", "--resume goes on, --overwrite starts over"),
        )
    target = Path(os.path.realpath(user_path(str(path))))  # pathlib raises for a loop of links
    check_output_file(target, inputs)
    if not resume and not overwrite:
        refuse_what_is_there(target)
    file = ResultFile.open(target, overwrite=overwrite, fields=())
    try:
        yield Results(file)
        file.take_place()
        write_whole(target, in_order(read_results(target, ()).lines))
    finally:
        file.close()
