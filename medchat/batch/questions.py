"""Reading a question file: JSON array, JSON lines or plain text, told apart by what is in it.

`.json`, `.jsonl` and `.ndjson` must hold JSON (BenTsao's `infer.json` is JSON lines in a `.json` file);
any other file is JSON where it begins like it and can be read as such, else one question a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medchat.api import Turn
from medchat.datafiles.json_file import BrokenArray, Item, array_items, line_item
from medchat.datafiles.record import QuestionRecord, RecordError, parse_record, text_value
from medchat.errors import CheckpointError, DataError
from medchat.language import say

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a file. `index` counts the file's records from 0, `line` its lines from 1."""

    index: int
    line: int
    asked: QuestionRecord

    @property
    def text(self) -> str:
        """The question as the file has it."""
        return self.asked.text

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said before it."""
        return self.asked.turns


@dataclass(frozen=True, slots=True)
class InvalidQuestion:
    """A record that asks nothing."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """A data file that has been read whole. `form` is "array", "lines" or "text"."""

    path: Path
    form: str
    questions: tuple[Question, ...]
    bad: tuple[InvalidQuestion, ...]

    @property
    def described(self) -> str:
        """The form in the interface language."""
        return {
            "array": say("JSON 数组", "a JSON array"),
            "lines": say("JSON 行", "JSON lines"),
            "text": say("纯文本，每行一问", "plain text, a question a line"),
        }[self.form]


def read_questions(path: Path) -> QuestionFile:
    """Read a data file.

    Raises CheckpointError where it is not there or cannot be read, DataError where it holds no record
    or breaks off so that no record after that point can be found. Single bad records are in `bad`.
    """
    raw = _bytes(path)
    form = _form(path, raw)
    if form == "array":
        questions, bad = _sorted_out(path, array_items(_decoded(path, raw)))
    elif form == "lines":
        questions, bad = _sorted_out(path, _line_items(raw))
    else:
        questions, bad = _plain(raw)
    if not questions and not bad:
        raise DataError(
            say("数据文件里没有问题", "the data file holds no question"),
            say("每行一个问题，或 JSON 行", "a question a line, or JSON lines"),
            where=str(path),
        )
    return QuestionFile(path, form, questions, bad)


def _bytes(path: Path) -> bytes:
    try:
        if path.is_file():
            return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        reason = say("不是文件", "it is not a file") if path.exists() else say("找不到文件", "no such file")
    except OSError as error:
        reason = error.strerror or str(error)
    raise CheckpointError(
        say(f"无法读取数据文件：{reason}", f"cannot read the data file: {reason}"),
        say("检查 --data 的路径", "check the path given to --data"),
        where=str(path),
    )


def _form(path: Path, raw: bytes) -> str:
    must_be_json = path.suffix.lower() in JSON_SUFFIXES
    start = raw.lstrip()[:1]
    if start == b"[" and (must_be_json or _is_json(raw)):
        return "array"
    if must_be_json or (start in (b"{", b'"') and _is_json(raw.lstrip().split(b"\n", 1)[0])):
        return "lines"
    return "text"


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(_not_utf8(), _CONVERT, where=f"{path}:{line}") from None


def _not_utf8() -> str:
    return say("不是 UTF-8 文本", "not UTF-8 text")


_CONVERT = "iconv -f GB18030 -t UTF-8"


def _lines(raw: bytes) -> Iterator[tuple[int, str | None]]:
    """Yield the lines that are not blank; None for one that is not UTF-8. A line ends at a newline only."""
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError:
            yield number, None
            continue
        if text.strip():
            yield number, text


def _line_items(raw: bytes) -> Iterator[Item]:
    if _is_json(raw):  # one object, written over several lines
        yield line_item(1, raw.decode("utf-8"))
        return
    for number, text in _lines(raw):
        yield Item(number, problem=_not_utf8()) if text is None else line_item(number, text)


def _sorted_out(
    path: Path, items: Iterable[Item]
) -> tuple[tuple[Question, ...], tuple[InvalidQuestion, ...]]:
    questions: list[Question] = []
    bad: list[InvalidQuestion] = []
    try:
        for index, item in enumerate(items):
            try:
                if item.problem:
                    raise RecordError(item.problem)
                questions.append(Question(index, item.line, parse_record(item.value)))
            except RecordError as error:
                bad.append(InvalidQuestion(item.line, str(error)))
    except BrokenArray as error:
        raise DataError(
            error.problem,
            say("修正这一行后再试", "correct the line and try again"),
            where=f"{path}:{error.line}",
        ) from None
    return tuple(questions), tuple(bad)


def _plain(raw: bytes) -> tuple[tuple[Question, ...], tuple[InvalidQuestion, ...]]:
    questions: list[Question] = []
    bad: list[InvalidQuestion] = []
    for index, (number, text) in enumerate(_lines(raw)):
        if text is None:
            bad.append(InvalidQuestion(number, _not_utf8()))
        else:
            questions.append(Question(index, number, text_value(text)))
    return tuple(questions), tuple(bad)
