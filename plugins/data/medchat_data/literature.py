"""Literature as a source of dialogues: abstracts or conclusions, one text a record. Knows no prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.plugin_kit import DataError, open_data_file, say
from medchat_data.knowledge import TURN_MARK, InvalidRecord

#: What the field with the text is called, what says most in fewest words first.
TEXT_FIELDS = ("结论", "conclusion", "conclusions", "摘要", "abstract", "正文", "text", "content")
#: What the field with the text's own name is called.
_ID_FIELDS = ("id", "pmid", "doi")
#: A text of more characters is a whole article: its abstract is wanted.
LONGEST_TEXT = 8000


@dataclass(frozen=True, slots=True)
class LiteratureText:
    """One text of a file. `line` is where it begins there, `id` its own or its number in the file."""

    id: str
    line: int
    text: str

    @property
    def sha256(self) -> str:
        """The digest of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class LiteratureFile:
    """A file of texts, read whole, in its order, every text once. `bad` are its records without one."""

    path: Path
    sources: tuple[LiteratureText, ...]
    bad: tuple[InvalidRecord, ...]


def read_literature(path: Path) -> LiteratureFile:
    """Read abstracts or conclusions: JSON, JSON lines, a table, or plain text with a blank line between two texts.

    Raises CheckpointError where it is not there or cannot be read, DataError where it breaks off or holds no text.
    """
    sources: dict[str, LiteratureText] = {}
    bad: list[InvalidRecord] = []
    with open_data_file(path, plain_text=True, is_known=lambda name: _folded(name) in TEXT_FIELDS) as file:
        items = [(item.line, item.value, item.problem) for item in file.items()]
        if file.layout == "text":
            items = list(_paragraphs(items))
    for number, (line, value, problem) in enumerate(items, start=1):
        text, identifier = _read(value)
        if reason := problem or _fault(text):
            bad.append(InvalidRecord(line, reason))
        else:
            sources.setdefault(text, LiteratureText(identifier or str(number), line, text))
    if not sources:
        raise DataError(
            bad[0].reason if bad else say("文件是空的", "the file is empty"),
            say(
                f"每条一个字段 {TEXT_FIELDS[0]} 或 abstract；纯文本则以空行分隔",
                f"a field {TEXT_FIELDS[0]} or abstract for each; plain text with blank lines between",
            ),
            where=f"{path}:{bad[0].line}" if bad else str(path),
        )
    return LiteratureFile(path, tuple(sources.values()), tuple(bad))


def _paragraphs(lines: Iterable[tuple[int, Any, str]]) -> Iterator[tuple[int, Any, str]]:
    """Yield the paragraphs of lines of text, each at its first line. Blank lines are left out already."""
    begin, end, said, problem = 0, -1, "", ""
    for line, value, fault in lines:
        if said and line != end + 1:
            yield begin, said, problem
            said, problem = "", ""
        begin = line if not said else begin
        said, end, problem = said + str(value or fault).strip(), line, problem or fault
    if said:
        yield begin, said, problem


def _read(value: Any) -> tuple[str, str]:
    """Return the text of a record and its own name, "" where it has none."""
    if isinstance(value, str):
        return value.strip(), ""
    fields = {_folded(name): said for name, said in value.items()} if isinstance(value, dict) else {}
    texts = (said.strip() for name in TEXT_FIELDS if isinstance(said := fields.get(name), str))
    names = (str(fields[name]).strip() for name in _ID_FIELDS if isinstance(fields.get(name), (str, int)))
    return next(filter(None, texts), ""), next(filter(None, names), "")


def _folded(name: str) -> str:
    return name.strip().casefold()


def _fault(text: str) -> str:
    """Return why a text cannot be used, "" where it can."""
    if not text:
        return say("没有结论或摘要", "no conclusion or abstract")
    if len(text) > LONGEST_TEXT:
        return say(
            f"超过 {LONGEST_TEXT} 字，应当是摘要，而不是全文",
            f"over {LONGEST_TEXT} characters: an abstract is wanted, not the whole",
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        return say("不是有效的 Unicode 文本", "not valid Unicode text")
    if mark := TURN_MARK.search(text):
        return say(f"有对话标记 {mark[0]}", f"it has the mark {mark[0]} of a dialogue")
    return ""
