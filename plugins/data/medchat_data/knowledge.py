"""Knowledge records: what is known of one disease, drug or test, as lists of values by relation.

Three forms are read: objects with a centre word and a list for each relation, as CMeKG and BenTsao have them; objects
with a list of triples (`spo_list`), joined by their subject over the whole file; and tables with a row for each
disease. Knows no prompts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.plugin_kit import DataError, open_data_file, say

#: What the field of the centre word is called, the usual name first.
CENTRE_FIELDS = ("中心词", "疾病", "疾病名称", "药物名称", "名称", "disease", "entity", "name")
#: Triples of [subject, relation, object].
TRIPLES_FIELD = "spo_list"
#: Fields that say something of the record and nothing of its subject.
_ABOUT_THE_RECORD = frozenset(
    ("id", "class", "类别", "text", "source", "source_date", "source_url", "来源", "来源日期", "来源网址")
)
#: English names of columns as people's tables have them, and the relation that each one is.
_ENGLISH = {
    **dict.fromkeys(("symptom", "symptoms"), "临床表现"),
    **dict.fromkeys(("test", "tests", "check", "examination"), "检查"),
    **dict.fromkeys(("drug", "drugs", "medicine", "medication"), "药物治疗"),
    **dict.fromkeys(("treatment", "treatments"), "治疗"),
    **dict.fromkeys(("complication", "complications"), "并发症"),
    **dict.fromkeys(("cause", "causes"), "病因"),
    "prevention": "预防",
    "department": "所属科室",
}
#: What stands between the values in a cell of a table.
_BETWEEN_VALUES = re.compile("[;；、|\n]")
#: How the literature data's dialogues mark who speaks.
TURN_MARK = re.compile("<(?:user|bot)>:")
_AT_THE_ENDS = " \t\r\n。；;，,、"


@dataclass(frozen=True, slots=True)
class KnowledgeRecord:
    """What a file says of `centre`. `line` is where it begins there, `id` its own or its number in the file.

    `relations` has at least one value for each relation, every value once. `sha256` is of the centre word and the
    relations, whatever file they stand in.
    """

    id: str
    line: int
    centre: str
    relations: Mapping[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """The digest of what the record says."""
        said = [self.centre, [[name, list(values)] for name, values in self.relations.items()]]
        return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record of the file that says nothing of anything, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class KnowledgeFile:
    """A file of knowledge, read whole, its records in its order."""

    path: Path
    sha256: str
    records: tuple[KnowledgeRecord, ...]
    bad: tuple[InvalidRecord, ...]


class _NoRecord(ValueError):
    """The value is no knowledge record; the message says why."""


@dataclass
class _Reading:
    """What has been read of a file so far. Triples are collected by subject: relation -> values as keys."""

    in_cells: bool
    records: list[KnowledgeRecord] = field(default_factory=list)
    bad: list[InvalidRecord] = field(default_factory=list)
    subjects: dict[str, tuple[int, dict[str, dict[str, None]]]] = field(default_factory=dict)

    def add(self, number: int, line: int, value: Any) -> None:
        if not isinstance(value, dict):
            raise _NoRecord(say("应当是一个 JSON 对象", "must be a JSON object"))
        _require_plain_text(value)
        if TRIPLES_FIELD in value:
            for subject, relation, said in list(_triples(value[TRIPLES_FIELD])):
                of_subject = self.subjects.setdefault(subject, (line, {}))[1]
                of_subject.setdefault(relation, {})[said] = None
            return
        centre = next((name for name in value if name.strip().casefold() in CENTRE_FIELDS), None)
        if centre is None or not isinstance(value[centre], str) or not _cleaned(value[centre]):
            raise _NoRecord(
                say(
                    f"没有中心词（字段 {CENTRE_FIELDS[0]}）", f"no centre word (the field {CENTRE_FIELDS[0]})"
                )
            )
        relations = dict(self._relations(value, centre))
        if not relations:
            raise _NoRecord(say("没有任何知识：关系都是空的", "no knowledge: every relation is empty"))
        own = value.get("id")
        identifier = str(own) if isinstance(own, (str, int)) and str(own).strip() else str(number)
        self.records.append(KnowledgeRecord(identifier, line, _cleaned(value[centre]), relations))

    def _relations(self, value: Mapping[str, Any], centre: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        for name, said in value.items():
            folded = name.strip().casefold()
            if name == centre or folded in _ABOUT_THE_RECORD or said in (None, "", []):
                continue
            values = said if isinstance(said, list) else [said]
            if not all(isinstance(one, str) for one in values):
                raise _NoRecord(say(f"{name} 应当是文本的列表", f"{name} must be a list of texts"))
            if self.in_cells:
                values = [part for one in values for part in _BETWEEN_VALUES.split(one)]
            if kept := tuple(dict.fromkeys(filter(None, map(_cleaned, values)))):
                yield _ENGLISH.get(folded, name.strip()), kept

    def joined(self) -> Iterator[KnowledgeRecord]:
        """Yield a record for each subject of triples."""
        for subject, (line, of_subject) in self.subjects.items():
            relations = {name: tuple(values) for name, values in of_subject.items()}
            yield KnowledgeRecord(subject, line, subject, relations)


def read_knowledge(path: Path) -> KnowledgeFile:
    """Read a file of knowledge records.

    Raises CheckpointError where it is not there or cannot be read, DataError where it breaks off or holds no
    knowledge record at all. Single bad records are in `bad`.
    """
    with open_data_file(path, is_known=lambda name: name.strip().casefold() in CENTRE_FIELDS) as file:
        reading = _Reading(in_cells=file.layout in ("csv", "tsv", "semicolons"))
        for number, item in enumerate(file.items(), start=1):
            try:
                if item.problem:
                    raise _NoRecord(item.problem)
                reading.add(number, item.line, item.value)
            except _NoRecord as error:
                reading.bad.append(InvalidRecord(item.line, str(error)))
    records = tuple(sorted((*reading.records, *reading.joined()), key=lambda record: record.line))
    if not records:
        reason = reading.bad[0].reason if reading.bad else say("文件是空的", "the file is empty")
        raise DataError(
            say(f"没有一条知识记录：{reason}", f"not one knowledge record: {reason}"),
            say("看一个例子：medchat data sample", "see an example: medchat data sample"),
            where=f"{path}:{reading.bad[0].line}" if reading.bad else str(path),
        )
    return KnowledgeFile(path, file.sha256, records, tuple(reading.bad))


def _triples(value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the triples of a list. Raises _NoRecord."""
    for triple in value if isinstance(value, list) else [None]:
        parts = triple if isinstance(triple, list) and len(triple) == 3 else [None]
        if not all(isinstance(part, str) and _cleaned(part) for part in parts):
            raise _NoRecord(
                say(
                    f"{TRIPLES_FIELD} 应当是三元组的列表，每个三元组是主语、关系和宾语",
                    f"{TRIPLES_FIELD} must be a list of [subject, relation, object]",
                )
            )
        subject, relation, said = map(_cleaned, parts)
        yield subject, relation, said


def _require_plain_text(value: Any) -> None:
    """Raise _NoRecord for texts that no file in UTF-8 can hold, and for those that would add a turn to a dialogue."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NoRecord(say("不是有效的 Unicode 文本", "not valid Unicode text")) from None
    if mark := TURN_MARK.search(text):
        raise _NoRecord(
            say(f"有对话标记 {mark[0]}，会多出一轮对话", f"the mark {mark[0]} would add a turn to a dialogue")
        )


def _cleaned(text: str) -> str:
    """Return a value without blanks and punctuation around it."""
    return text.strip(_AT_THE_ENDS)
