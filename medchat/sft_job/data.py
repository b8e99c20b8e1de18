"""Reading training data: the published forms, told apart record by record, and what is held out of it.

Every answer that a file teaches becomes one `Example`. Knows no template and no tokenizer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.api import Example
from medchat.datafiles.data_file import open_data_file
from medchat.datafiles.json_values import Item
from medchat.datafiles.layout import Layout
from medchat.datafiles.record import QuestionRecord, RecordError, is_field, parse_record
from medchat.errors import DataError, UsageError
from medchat.language import say

#: `--val-size` -1 holds out a tenth of the data, at most so many, and none of fewer than `FEWEST_TO_SPLIT`
#: (docs/specs/training.md, "Small runs").
MOST_HELD_OUT = 500
FEWEST_TO_SPLIT = 20
#: So many bad records are named in the error about them.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class InvalidExample:
    """A record nothing can be learned from. `where` is `file:line`, in an array with the record's number."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A data file, read. `forms` counts its good records by form, most frequent first.

    The forms: "alpaca", "literature", "med-chatglm", "ptuning", "sharegpt", "messages", and "pairs" for
    any other pair of a question and an answer. A conversation of the two forms before that teaches each of
    its answers, so there may be more `examples` than records. `sha256` is of the file's bytes, `file_type`
    what kind of file it is in the interface language.
    """

    path: Path
    layout: Layout
    file_type: str
    forms: Mapping[str, int]
    examples: tuple[Example, ...]
    bad: tuple[InvalidExample, ...]
    sha256: str

    @property
    def records(self) -> int:
        """How many good records there are."""
        return sum(self.forms.values())

    @property
    def described(self) -> str:
        """What the file is, in the interface language."""
        names = [
            form_name(form) + (f" × {count}" if len(self.forms) > 1 else "")
            for form, count in self.forms.items()
        ]
        return say("{0}（{1}）", "{0} ({1})").format(say("、", ", ").join(names), self.file_type)


def form_name(form: str) -> str:
    """Return what people call a form of records, in the interface language."""
    return {
        "alpaca": say("Alpaca 格式", "Alpaca"),
        "literature": say("BenTsao 文献对话", "BenTsao literature dialogues"),
        "med-chatglm": say("Med-ChatGLM 格式", "Med-ChatGLM"),
        "ptuning": say("ChatGLM P-tuning 格式", "ChatGLM P-tuning"),
        "sharegpt": say("ShareGPT 对话", "ShareGPT conversations"),
        "messages": say("OpenAI 消息", "OpenAI messages"),
        "pairs": say("问答对", "questions and answers"),
    }[form]


def read_training_data(path: Path, *, skip_bad: bool = False) -> TrainingFile:
    """Read a training file, recognised by what is in it (`medchat.datafiles`).

    Raises CheckpointError where it is not there or cannot be read; DataError with `file:line` for the
    first bad record (how many there are is said too), unless `skip_bad`; DataError where a file is of
    another kind or breaks off, or nothing is left to learn from.
    """
    forms: Counter[str] = Counter()
    examples: list[Example] = []
    bad: list[InvalidExample] = []
    with open_data_file(path, is_known=is_field) as file:
        for number, item in enumerate(file.items(), start=1):
            where = f"{path}:{item.line}"
            if file.is_counted:  # all may stand on one line, as BenTsao's do
                where += say(f"（第 {number} 条）", f" (record {number})")
            try:
                form, learned = _read(item, where)
            except RecordError as error:
                bad.append(InvalidExample(where, str(error)))
                continue
            forms[form] += 1
            examples += learned
        digest = file.sha256
    if bad and not skip_bad:
        raise _bad_records(bad, forms.total())
    if not examples:
        raise DataError(
            say("数据文件里没有可以学习的记录", "the data file holds no record to learn from"),
            say("每行一条 JSON，或一个 JSON 数组", "one JSON record a line, or one JSON array"),
            where=bad[0].where if bad else str(path),
        )
    return TrainingFile(
        path, file.layout, file.described, dict(forms.most_common()), tuple(examples), tuple(bad), digest
    )


def _read(item: Item, where: str) -> tuple[str, list[Example]]:
    if item.problem:
        raise RecordError(item.problem)
    asked = parse_record(item.value)
    form = _form(item.value, asked)
    return form, list(_examples(asked, form, where))


def _examples(asked: QuestionRecord, form: str, where: str) -> Iterator[Example]:
    answer = _answer(asked.reference)
    if form in ("sharegpt", "messages"):
        for number, turn in enumerate(asked.turns):
            earlier = asked.turns[:number]
            yield Example(turn.question, _answer(turn.answer), earlier, asked.system, where=where)
    yield Example(
        question=asked.last,
        answer=answer,
        turns=asked.turns,
        system=asked.system,
        input=asked.input,
        dialogue=asked.text if asked.is_dialogue else "",
        where=where,
    )


def _form(value: Any, asked: QuestionRecord) -> str:
    """Name the form of a record that could be read. A text alone has no answer, so it is an object here."""
    keys = {key for key in value if value[key] is not None} if isinstance(value, dict) else set()
    for form, needed in (
        ("messages", {"messages"}),
        ("sharegpt", {"conversations"}),
        ("med-chatglm", {"context", "target"}),
        ("ptuning", {"content", "summary"}),
    ):
        if needed <= keys:
            return form
    if {"instruction", "output"} <= keys:
        return "literature" if asked.is_dialogue else "alpaca"
    return "pairs"


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
        say(
            "每行一条 JSON 记录，或一个 JSON 数组；加上 --skip-bad 可略去坏记录",
            "one JSON record a line, or one JSON array; --skip-bad leaves bad records out",
        ),
        where=bad[0].where,
    )


def split(
    examples: Sequence[Example], val_size: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return (what to train on, what is held out), each in the order of the data.

    `val_size` examples are held out; -1 is min(500, a tenth), 0 below 20. What begins with the same question
    (with the same system text and `input`) stays together, so that no conversation and no question is on
    both sides; the held out are fewer where no group of the right size is left. The same data and seed give
    the same split. Raises UsageError if nothing would be left to train on.
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
    groups: dict[tuple[str, str, str], list[int]] = {}
    for number, example in enumerate(examples):
        first = example.turns[0].question if example.turns else example.question
        groups.setdefault((example.system, first, example.input), []).append(number)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    held_out: set[int] = set()
    for group in shuffled:
        if len(held_out) + len(group) <= val_size:
            held_out.update(group)
    train = tuple(example for number, example in enumerate(examples) if number not in held_out)
    return train, tuple(examples[number] for number in sorted(held_out))
