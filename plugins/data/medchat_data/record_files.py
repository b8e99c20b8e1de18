"""Files of records that a command reads or writes whole: written as JSON lines, for their owner, in one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medchat.plugin_kit import (
    DataError,
    QuestionRecord,
    RecordError,
    UsageError,
    as_line,
    check_output_file,
    open_data_file,
    output_error,
    parse_record,
    say,
    write_whole_file,
)


def bad_record(path: Path, line: int, reason: str, remedy: str) -> DataError:
    """Return the error for a record of a file that has to be good as a whole. `remedy` may be ""."""
    see_all = say("查看全部：medchat data validate", "see all of them: medchat data validate")
    return DataError(reason, remedy or see_all, where=f"{path}:{line}")


def require_free(path: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raise UsageError where `path` is one of `inputs`, no ordinary file, or there and not to be overwritten."""
    check_output_file(path, {str(source): source for source in inputs})
    if path.exists() and not overwrite:
        raise UsageError(
            say("--output 已经存在", "--output is there already"),
            say("换一个 --output，或加上 --overwrite", "use another --output, or add --overwrite"),
            where=str(path),
        )


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write the records, a line each, to `path`; what is there stays until all of it is written.

    Raises MedchatError where the disk refuses it.
    """
    write_output(path, b"".join(map(as_line, records)))


def write_output(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; what is there stays until all of it is written.

    Raises MedchatError where the disk refuses it.
    """
    try:
        write_whole_file(path, content, private=True)
    except OSError as error:
        raise output_error(path, error) from error


def read_records(path: Path) -> list[tuple[Mapping[str, Any], QuestionRecord]]:
    """Return the records, each as it stands in the file and as it is read. Raises DataError for one that is bad."""
    records: list[tuple[Mapping[str, Any], QuestionRecord]] = []
    with open_data_file(path) as file:
        for item in file.items():
            try:
                if item.problem:
                    raise RecordError(item.problem)
                if not isinstance(item.value, dict):
                    raise RecordError(say("应当是一个 JSON 对象", "must be a JSON object"))
                records.append((item.value, parse_record(item.value)))
            except RecordError as error:
                raise bad_record(path, item.line, str(error), error.remedy) from None
    return records
