"""Files of choice questions: CMB-Exam, CMExam, CMMLU, C-Eval, MedQA and our own, told apart by their fields.

A record has a question, its options (an object, a list, lines of text, or columns A, B, …) and the right ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.plugin_kit import DataError, open_data_file, say
from medchat_eval.results import data_facts

LETTERS = "ABCDEFGHIJ"
#: Names of a field by use, the more telling first; compared without regard to case.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "题目", "题干", "stem"),
    "options": ("option", "options", "choices", "选项"),
    "answer": ("answer_idx", "answer", "答案", "key"),
    "subject": ("exam_subject", "subject", "medical discipline", "科目", "学科", "meta_info"),
    "kind": ("question_type", "题型"),
    "id": ("id", "qid"),
    "license": ("license", "licence", "许可"),
}
_KEYS_AND_TEXTS = (("key", "value"), ("key", "text"), ("label", "text"), ("label", "value"))
#: A line that begins an option: a letter, and a mark or a blank behind it.
_LETTERED = re.compile(r"\s*[(（]?([A-Ja-j])(?:[)）]|\s*[.．、:：]|\s)\s*(?P<text>.*)")
_BETWEEN = re.compile(r"[\s,，、;；/和与]+")
_SEVERAL = ("多项", "多选", "不定项", "multi")


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """One question. `answer` holds the places of the right options, from 0; `several` asks for all of a set.

    `index` counts the file's questions from 0, `line` its lines from 1.
    """

    index: int
    line: int
    question: str
    options: tuple[str, ...]
    answer: frozenset[int]
    several: bool = False
    subject: str = ""
    id: str = ""
    license: str = ""

    @property
    def letters(self) -> str:
        """The letters of the right options, in order."""
        return option_letters(self.answer)


@dataclass(frozen=True, slots=True)
class BadItem:
    """A record that is no choice question, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChoiceFile:
    """A file that has been read whole."""

    path: Path
    sha256: str
    items: tuple[ChoiceItem, ...]
    bad: tuple[BadItem, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What results state of it."""
        return data_facts(self.path, self.sha256, len(self.items), (item.license for item in self.items))


def option_letters(places: frozenset[int]) -> str:
    """Return the letters of options by their places."""
    return "".join(LETTERS[place] for place in sorted(places))


def read_choice_file(
    path: Path, *, answers: Mapping[str, Any] | None = None, skip_bad: bool = False
) -> ChoiceFile:
    """Read a file of choice questions; `answers`, by id, stand in for those that its records lack.

    Raises CheckpointError where it cannot be read, DataError where it holds no question and, unless `skip_bad`, for
    the first record that is none.
    """
    items: list[ChoiceItem] = []
    bad: list[BadItem] = []
    with open_data_file(path, is_known=_is_known) as file:
        for found in file.items():
            try:
                if found.problem:
                    raise ValueError(found.problem)
                items.append(_item(found.value, len(items), found.line, path, answers or {}))
            except ValueError as error:
                bad.append(BadItem(found.line, str(error)))
        sha256 = file.sha256
    if bad and not (skip_bad and items):
        more = say(f"（共 {len(bad)} 条有误）", f" ({len(bad)} records are bad)") if len(bad) > 1 else ""
        raise DataError(
            bad[0].reason + more,
            say("修正它，或用 --skip-bad 跳过并计数", "correct it, or pass over it with --skip-bad, counted"),
            where=f"{path}:{bad[0].line}",
        )
    if not items:
        raise DataError(
            say("文件里没有选择题", "the file holds no choice question"),
            say("medchat eval sample choice 是一个例子", "medchat eval sample choice prints an example"),
            where=str(path),
        )
    return ChoiceFile(path, sha256, tuple(items), tuple(bad))


def read_answers(path: Path) -> dict[str, Any]:
    """Read a file of answers by id, as CMB publishes those of its test questions. Raises as `read_choice_file`."""
    found: dict[str, Any] = {}
    with open_data_file(path, is_known=_is_known) as file:
        for item in file.items():
            record = item.value if isinstance(item.value, dict) else {}
            key, value = _field(record, "id"), _field(record, "answer")
            if item.problem or key is None or value is None:
                raise DataError(
                    item.problem or say("没有 id 或 answer 字段", "no field id or answer"),
                    say("检查 --answers 的文件", "check the file of --answers"),
                    where=f"{path}:{item.line}",
                )
            found[str(key)] = value
    return found


def listed_choice(question: str, answer: str) -> tuple[tuple[str, ...], frozenset[int]] | None:
    """Return the options that a question lists under letters and the places of the right ones; None for no such."""
    options = {_folded(key): text for key, text in _lettered_lines(question)}
    if len(options) < 2 or "".join(options) != LETTERS[: len(options)]:
        return None
    try:
        return tuple(options.values()), _places(answer, options)
    except ValueError:
        return None


def _is_known(name: str) -> bool:
    folded = name.strip().casefold()
    return any(folded in names for names in _NAMES.values())


def _field(record: Mapping[str, Any], use: str) -> Any:
    by_name = {str(name).strip().casefold(): value for name, value in record.items()}
    return next((by_name[name] for name in _NAMES[use] if by_name.get(name) not in (None, "")), None)


def _item(record: Any, index: int, line: int, path: Path, answers: Mapping[str, Any]) -> ChoiceItem:
    if not isinstance(record, dict):
        raise ValueError(say("应当是一个 JSON 对象", "must be a JSON object"))
    question = _field(record, "question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(_no_question(record))
    options = dict(_options(record))
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(
            say(
                f"有 {len(options)} 个选项，应为 2 到 {len(LETTERS)} 个",
                f"{len(options)} options, expected 2 to {len(LETTERS)}",
            )
        )
    identity = str(_field(record, "id") if _field(record, "id") is not None else index)
    given = _field(record, "answer")
    places = _places(answers.get(identity) if given is None else given, options)
    kind, subject = _field(record, "kind"), _field(record, "subject")
    several = len(places) > 1 or any(word in str(kind).casefold() for word in _SEVERAL)
    texts, stated = tuple(options.values()), str(_field(record, "license") or "")
    return ChoiceItem(
        index, line, question.strip(), texts, places, several, _subject(subject, path), identity, stated
    )


def _no_question(record: Mapping[str, Any]) -> str:
    """Return what is wrong with a record without a question: CMB publishes the answers of its test by themselves."""
    if _field(record, "answer") is not None and not dict(_options(record)):
        return say(
            "只有答案，没有问题：这个文件用 --answers 给出，--file 是题目",
            "an answer without a question: give this file with --answers, and the questions with --file",
        )
    return say("没有问题（question）", "no question")


def _subject(stated: Any, path: Path) -> str:
    """Return the stated subject, else the file's name: CMMLU and C-Eval keep a subject in each file."""
    return stated.strip() if isinstance(stated, str) and stated.strip() else path.stem


def _options(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each option that has a text, by its key in capitals."""
    value = _field(record, "options")
    if isinstance(value, str):
        pairs = list(_lettered_lines(value))
    elif isinstance(value, dict):
        pairs = [(str(key), text) for key, text in value.items()]
    elif isinstance(value, list):
        pairs = [_of_list(at, option) for at, option in enumerate(value)]
    else:
        folded = {str(name).strip().upper(): text for name, text in record.items()}
        pairs = [(letter, folded[letter]) for letter in LETTERS if letter in folded]
    for key, text in pairs:
        if isinstance(text, (int, float)) and not isinstance(text, bool):
            text = str(text)
        if not isinstance(text, str):
            raise ValueError(say("选项应当都是文本", "the options must be texts"))
        if text.strip():
            yield _folded(key), text.strip()


def _of_list(at: int, option: Any) -> tuple[str, Any]:
    for key, text in _KEYS_AND_TEXTS:
        if isinstance(option, dict) and key in option and text in option:
            return str(option[key]), option[text]
    return (LETTERS[at] if at < len(LETTERS) else str(at)), option


def _lettered_lines(text: str) -> Iterator[tuple[str, str]]:
    key, parts = "", list[str]()
    for line in unicodedata.normalize("NFC", text).splitlines():
        begun = _LETTERED.fullmatch(line)
        if begun:
            if key:
                yield key, "\n".join(parts)
            key, parts = begun[1], [begun["text"]]
        elif key:
            parts.append(line)
    if key:
        yield key, "\n".join(parts)


def _places(answer: Any, options: Mapping[str, str]) -> frozenset[int]:
    """Return the places of the right options: named by keys (`ABD`, `A,B`), or by the text of one of them."""
    if isinstance(answer, list):
        answer = ",".join(map(str, answer))
    if answer is None or isinstance(answer, bool) or not str(answer).strip():
        raise ValueError(say("没有答案（answer）", "no answer"))
    keys, given = list(options), str(answer).strip()
    named = _BETWEEN.sub("", _folded(given))
    if all(len(key) == 1 for key in keys) and named and set(named) <= set(keys):
        return frozenset(map(keys.index, named))
    if _folded(given) in keys:
        return frozenset({keys.index(_folded(given))})
    matching = [place for place, text in enumerate(options.values()) if text == given]
    if len(matching) == 1:
        return frozenset(matching)
    shown = "/".join(keys)
    raise ValueError(
        say(f"答案“{given[:40]}”不在选项 {shown} 之中", f"the answer {given[:40]!r} is none of {shown}")
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().strip(".").upper()
