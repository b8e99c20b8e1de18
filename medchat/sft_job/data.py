"""Reads training data in the published formats, recognised record by record, and splits off held-out data.

Every answer to be learned becomes one `Example`. No template or tokenizer is needed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.api import Example
from medchat.datafiles.data_file import open_data_file
from medchat.datafiles.fields import NO_CHOICE, FieldChoice, RecordError
from medchat.datafiles.forms import form_name
from medchat.datafiles.json_values import Item
from medchat.datafiles.layout import Layout
from medchat.datafiles.record import QuestionRecord, parse_record
from medchat.datafiles.tally import FieldTally
from medchat.errors import DataError, UsageError
from medchat.language import say

#: `--val-size` -1 holds out a tenth of the data, at most this many, and nothing below `FEWEST_TO_SPLIT`
#: (docs/specs/training.md, "Small runs").
MOST_HELD_OUT = 500
FEWEST_TO_SPLIT = 20
#: The number of bad records that an error names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class InvalidExample:
    """A record from which nothing can be learned. `where` is `file:line`, in an array with the record's number.

    `remedy` is what to do, "" for the default: correct or skip it.
    """

    where: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A data file that was read. `forms` counts its valid records by format (`medchat.datafiles.forms`), most
    frequent first.

    A conversation gives an example for each answer, and a record one for each wording of its question, so
    there may be more `examples` than records. `unanswered` counts conversations whose last question has no
    answer and is left out, `unlearned` the answers with weight 0, which are context only. `sha256` is of the
    file's bytes, `file_type` the type of file in the interface language.
    """

    path: Path
    layout: Layout
    file_type: str
    forms: Mapping[str, int]
    fields: FieldTally
    examples: tuple[Example, ...]
    bad: tuple[InvalidExample, ...]
    unanswered: int
    unlearned: int
    sha256: str

    @property
    def records(self) -> int:
        """The number of valid records."""
        return sum(self.forms.values())

    def remarks(self) -> Iterator[str]:
        """Yield remarks on the fields and on what is not learned, in the interface language."""
        yield from self.fields.lines()
        if self.unanswered:
            yield say(
                f"{self.unanswered} 段对话以用户的话结尾，没有对应的回答，这句话不参与学习",
                f"{self.unanswered} conversations end with the user: their last words have no answer and are left out",
            )
        if self.unlearned:
            yield say(
                f"{self.unlearned} 个回答的 weight 是 0，只作上文，不参与学习",
                f"{self.unlearned} answers have weight 0: they are context and are not learned",
            )

    @property
    def described(self) -> str:
        """A description of the file, in the interface language."""
        names = [
            form_name(form) + (f" × {count}" if len(self.forms) > 1 else "")
            for form, count in self.forms.items()
        ]
        return say("{0}（{1}）", "{0} ({1})").format(say("、", ", ").join(names), self.file_type)


@dataclass
class _Reading:
    """The state of reading a file."""

    choice: FieldChoice
    forms: Counter[str] = field(default_factory=Counter)
    fields: FieldTally = field(default_factory=FieldTally)
    examples: list[Example] = field(default_factory=list)
    bad: list[InvalidExample] = field(default_factory=list)
    unanswered: int = 0
    unlearned: int = 0

    def add(self, item: Item, where: str) -> None:
        """Add one value of the file, or note that it is bad."""
        try:
            if item.problem:
                raise RecordError(item.problem)
            asked = parse_record(item.value, self.choice)
            learned = list(_examples(asked, where))
        except RecordError as error:
            self.bad.append(InvalidExample(where, str(error), error.remedy))
            return
        self.examples += learned
        self.forms[asked.form] += 1
        self.fields.add(asked)
        self.unanswered += asked.is_conversation and asked.reference is None
        self.unlearned += sum(not _is_greeting(asked, number) for number in asked.unlearned)


def read_training_data(
    path: Path, *, skip_bad: bool = False, choice: FieldChoice = NO_CHOICE
) -> TrainingFile:
    """Read a training file, recognised by its content (`medchat.datafiles`); `choice` names its fields.

    Raises CheckpointError if it is missing or unreadable; DataError with `file:line` for the first bad record
    (and their number), unless `skip_bad`; DataError if a file is of another type or truncated, or nothing is
    left to learn from.
    """
    reading = _Reading(choice)
    with open_data_file(path, is_known=choice.knows) as file:
        for number, item in enumerate(file.items(), start=1):
            where = f"{path}:{item.line}"
            if file.is_counted:  # all may be on one line, as in BenTsao's files
                where += say(f"（第 {number} 条）", f" (record {number})")
            reading.add(item, where)
    bad = reading.bad
    if bad and not skip_bad:
        raise _bad_records(bad, reading.forms.total())
    if not reading.examples:
        raise _nothing_to_learn(bad, path)
    return TrainingFile(
        path=path,
        layout=file.layout,
        file_type=file.described,
        forms=dict(reading.forms.most_common()),
        fields=reading.fields,
        examples=tuple(reading.examples),
        bad=tuple(bad),
        unanswered=reading.unanswered,
        unlearned=reading.unlearned,
        sha256=file.sha256,
    )


def _nothing_to_learn(bad: Sequence[InvalidExample], path: Path) -> DataError:
    """Return the error for a file without one good record: with what the first lacks, where there are records."""
    what = say("数据文件里没有可以学习的记录", "the data file holds no record to learn from")
    if not bad:
        form = say("每行一条 JSON，或一个 JSON 数组", "one JSON record a line, or one JSON array")
        return DataError(what, form, where=str(path))
    first, count = bad[0], len(bad)
    what += say(f"（{count} 条都有误）：{first.reason}", f" (all {count} are bad): {first.reason}")
    fields = say(
        "每条要有问题和答案，如 instruction 和 output",
        "each needs a question and an answer, as instruction and output",
    )
    return DataError(what, first.remedy or fields, where=first.where)


def _is_greeting(asked: QuestionRecord, number: int) -> bool:
    """Whether that answer is a greeting before the first question."""
    return number < len(asked.turns) and not asked.turns[number].question


def _examples(asked: QuestionRecord, where: str) -> Iterator[Example]:
    """Yield the examples of a record. Raises RecordError if there are none."""
    taught = 0
    for number, turn in enumerate(asked.turns if asked.is_conversation else ()):
        answer = _answer(turn.answer)
        if number not in asked.unlearned:
            taught += 1
            yield Example(turn.question, answer, asked.turns[:number], asked.system, where=where)
    if taught and asked.reference is None:
        return  # the last question has no answer
    if asked.reference is None and (others := [name for name in asked.unused if "[]" not in name]):
        raise _no_known_answer(others)
    answer = _answer(asked.reference)
    if len(asked.turns) in asked.unlearned:
        if not taught:
            raise RecordError(
                say("没有可以学习的回答：weight 都是 0", "no answer is learned: each has weight 0")
            )
        return
    for question in (asked.last, *asked.wordings):
        yield Example(
            question=question,
            answer=answer,
            turns=asked.turns,
            system=asked.system,
            input=asked.input,
            dialogue=asked.text if asked.is_dialogue else "",
            where=where,
        )


def _no_known_answer(others: Sequence[str]) -> RecordError:
    listed = ", ".join(others[:_NAMED]) + (" …" if len(others) > _NAMED else "")
    return RecordError(
        say(
            f"没有答案字段；没有用到的字段：{listed}", f"no answer field; fields that were not used: {listed}"
        ),
        say("若答案在其中，用 --answer-field 指定", "if one of them holds the answer: --answer-field"),
    )


def _answer(reference: Any) -> str:
    if reference is None or reference == "":
        raise RecordError(say("没有答案", "there is no answer"))
    if not isinstance(reference, str):
        raise RecordError(say("答案应当是文本", "the answer must be text"))
    if not reference.strip():
        raise RecordError(say("答案是空的", "the answer is empty"))
    try:
        reference.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError(
            say("答案不是有效的 Unicode 文本", "the answer is not valid Unicode text")
        ) from None
    return reference


def _bad_records(bad: Sequence[InvalidExample], good: int) -> DataError:
    others = say("、", ", ").join(record.where.rpartition(":")[2] for record in bad[1:_NAMED])
    more = "" if len(bad) <= _NAMED else " …"
    also = say(
        f"；这样的记录共有 {len(bad)} 条（另见 {others}{more}），其余 {good} 条可用",
        f"; {len(bad)} records are bad (see also {others}{more}), the other {good} are good",
    )
    return DataError(
        bad[0].reason + (also if len(bad) > 1 else ""),
        (bad[0].remedy or say("改正它", "correct it"))
        + say("；加上 --skip-bad 可跳过格式有误的记录", "; --skip-bad leaves bad records out"),
        where=bad[0].where,
    )


def split(
    examples: Sequence[Example], val_size: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return (training examples, held-out examples), each in the order of the data.

    `val_size` examples are held out; -1 is min(500, a tenth), 0 below 20. Examples that begin with the same
    question (with the same system text and `input`) or come from one record stay together, so that no
    conversation and no question is in both parts; fewer are held out if no group of the right size is left.
    The same data and seed give the same split. Raises UsageError if nothing would be left to train on.
    """
    if val_size < 0:
        val_size = 0 if len(examples) < FEWEST_TO_SPLIT else min(MOST_HELD_OUT, len(examples) // 10)
    if val_size >= len(examples):
        raise UsageError(
            say(
                f"--val-size {val_size} 之后没有数据可以训练：一共 {len(examples)} 条",
                f"--val-size {val_size} leaves nothing to train on: there are {len(examples)} examples",
            ),
            f"--val-size {len(examples) // 10}",
        )
    groups: dict[int, list[int]] = {}
    for number, earliest in enumerate(_kept_together(examples)):
        groups.setdefault(earliest, []).append(number)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    held_out: set[int] = set()
    for group in shuffled:
        if len(held_out) + len(group) <= val_size:
            held_out.update(group)
    train = tuple(example for number, example in enumerate(examples) if number not in held_out)
    return train, tuple(examples[number] for number in sorted(held_out))


def _kept_together(examples: Sequence[Example]) -> list[int]:
    """Return for each example the index of the first example of its group."""
    parent = list(range(len(examples)))

    def first(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    seen: dict[Any, int] = {}
    for number, example in enumerate(examples):
        asked = (turn.question for turn in example.turns if turn.question)
        keys: list[Any] = [(example.system, next(asked, example.question), example.input)]
        for key in [*keys, example.where] if example.where else keys:
            earlier, later = sorted((first(seen.setdefault(key, number)), first(number)))
            parent[later] = earlier
    return [first(number) for number in range(len(examples))]
