"""The lines of a result file: reading them, torn or whole, and putting them in order.

Knows lines and where they lie; what they say is in `rows`, how they are added in `result_file`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.api import Finish
from medchat.errors import DataError, MedchatError
from medchat.language import say
from medchat.regular_files import read_regular
from medchat.whole_file import write_whole_file

#: The texts that each line of `medchat infer` has, besides its index.
ANSWER_FIELDS = ("question", "answer", "finish")
#: Bytes of a result file, which is read whole: some millions of answers.
_LARGEST = 2**32


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a result file. `raw` is the line as it is there, its newline included."""

    raw: bytes
    row: Mapping[str, Any]
    number: int

    @property
    def index(self) -> int:
        """Which question it answers."""
        return int(self.row["index"])

    @property
    def answered(self) -> bool:
        """Whether it holds an answer, and not a refusal or a failure."""
        return bool(self.row.get("finish") != Finish.ERROR)


@dataclass(frozen=True, slots=True)
class Written:
    """What a result file holds. `size` counts the bytes of whole lines, `torn` those after them."""

    lines: tuple[Line, ...] = ()
    size: int = 0
    torn: int = 0


def read_results(path: Path, fields: Collection[str] = ANSWER_FIELDS) -> Written:
    """Read a result file; one that is missing is empty.

    Each line is an object with an `index` and the texts `fields`. The last one may be torn. Raises DataError,
    naming the line, for anything else that is not a line of a result file: then it may be somebody else's file,
    and must be left alone.
    """
    try:
        raw = read_regular(path, _LARGEST)
    except FileNotFoundError:
        return Written()
    except OSError as error:
        raise file_error(path, error) from error
    lines: list[Line] = []
    size = 0
    pieces = raw.split(b"\n")
    last = len(pieces) - 1 if pieces[-1] else len(pieces) - 2
    for position, piece in enumerate(pieces[: last + 1]):
        row = _row(piece, fields)
        if row is not None:
            lines.append(Line(piece + b"\n", row, position + 1))
            size += len(piece) + 1
        elif position == last and _is_torn(piece):
            break
        else:
            raise DataError(
                say("这一行不是 MedChat 写入的结果", "this line is not a result that MedChat wrote"),
                say("换一个 --output，或删掉这一行", "use another --output, or delete the line"),
                where=f"{path}:{position + 1}",
            )
    return Written(tuple(lines), min(size, len(raw)), max(0, len(raw) - size))


def bytes_in(path: Path) -> int:
    """Return how many bytes the file holds, 0 if there is none. Raises MedchatError."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError as error:
        raise file_error(path, error) from error


def _value(piece: bytes) -> Any:
    """Return what the JSON in `piece` says, None if it is not JSON."""
    try:
        return json.loads(piece)
    except (ValueError, RecursionError):
        return None


def _row(piece: bytes, fields: Collection[str]) -> Mapping[str, Any] | None:
    row = _value(piece)
    if not isinstance(row, dict) or type(row.get("index")) is not int:
        return None
    texts = all(isinstance(row.get(name), str) for name in fields)
    return row if texts else None


def _is_torn(piece: bytes) -> bool:
    """Whether the piece may be the beginning of a line of ours. After a power cut its end may be zeros."""
    return piece.strip(b"\0")[:1] in (b"", b"{") and _value(piece) is None


def file_error(path: Path, error: OSError) -> MedchatError:
    """Return what to say of a file that cannot be read or written."""
    reason = error.strerror or str(error)
    return MedchatError(
        say(f"结果文件读写失败：{reason}", f"the result file cannot be read or written: {reason}"),
        say(
            "修正后用 --resume 继续，已写入的回答都在",
            "fix that and continue with --resume; every answer written so far is kept",
        ),
        where=str(path),
    )


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Return the last line of each question, in the questions' order."""
    latest = {line.index: line for line in lines}
    return [latest[index] for index in sorted(latest)]


def write_whole(path: Path, lines: Sequence[Line]) -> None:
    """Put `lines` in place of the file at `path` in one step, unless it holds just them.

    Raises MedchatError, and then nothing has changed.
    """
    data = b"".join(line.raw for line in lines)
    try:
        if not path.exists() or read_regular(path, _LARGEST) != data:
            write_whole_file(path, data, private=True)
    except OSError as error:
        raise file_error(path, error) from error
