"""Reading a question file: what `medchat.datafiles` recognises, or plain text with a question a line.

`.json`, `.jsonl` and `.ndjson` must hold JSON or a table (BenTsao's `infer.json` is JSON lines in a `.json` file).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medchat.api import Turn
from medchat.datafiles.data_file import open_data_file
from medchat.datafiles.fields import NO_CHOICE, FieldChoice, RecordError
from medchat.datafiles.layout import Layout
from medchat.datafiles.record import QuestionRecord, parse_record
from medchat.datafiles.tally import FieldTally
from medchat.errors import DataError
from medchat.language import say


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
    """A record that asks nothing. `remedy` is what to do, "" for correcting or skipping it."""

    line: int
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """A data file that has been read whole. `described` is what it is, in the interface language."""

    path: Path
    form: Layout
    described: str
    fields: FieldTally
    questions: tuple[Question, ...]
    bad: tuple[InvalidQuestion, ...]


def read_questions(path: Path, choice: FieldChoice = NO_CHOICE) -> QuestionFile:
    """Read a data file; `choice` names its fields.

    Raises CheckpointError where it is not there or cannot be read, DataError where it holds no record, is of a
    kind that is not read, or breaks off so that no record after that point can be found. Single bad records
    are in `bad`.
    """
    questions: list[Question] = []
    bad: list[InvalidQuestion] = []
    fields = FieldTally()
    with open_data_file(path, plain_text=True, is_known=choice.knows) as file:
        for index, item in enumerate(file.items()):
            try:
                if item.problem:
                    raise RecordError(item.problem)
                asked = parse_record(item.value, choice)
            except RecordError as error:
                bad.append(InvalidQuestion(item.line, str(error), error.remedy))
                continue
            questions.append(Question(index, item.line, asked))
            fields.add(asked)
    if not questions and not bad:
        raise DataError(
            say("数据文件里没有问题", "the data file holds no question"),
            say("每行一个问题，或 JSONL", "a question a line, or JSON lines"),
            where=str(path),
        )
    return QuestionFile(path, file.layout, file.described, fields, tuple(questions), tuple(bad))
