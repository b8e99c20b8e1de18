"""Records in other forms: written, then read again, and refused where what is read is not what was written.

So no form loses anything in silence: turns in a form of single questions, a system text where there is no place for
one, an answer that is learned where the form teaches the last one alone. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medchat.plugin_kit import QuestionRecord, RecordError, Turn, parse_record, say

Written = dict[str, Any]


def as_dialogue(turns: Iterable[Turn], last: str) -> str:
    """Return a dialogue that ends in a question as the literature data writes it."""
    said = "".join(f" <user>: {turn.question} <bot>: {turn.answer}" for turn in turns)
    return f"{said} <user>: {last}"


def _alpaca(asked: QuestionRecord) -> Written:
    return {"instruction": asked.last, "input": asked.input, "output": asked.reference}


def _literature(asked: QuestionRecord) -> Written:
    return {
        "instruction": as_dialogue(asked.turns, asked.last),
        "output": asked.reference,
        "input": asked.input,
    }


def _med_chatglm(asked: QuestionRecord) -> Written:
    return {"context": f"问题：{asked.last}\n回答: ", "target": asked.reference}


def _ptuning(asked: QuestionRecord) -> Written:
    return {"content": asked.last, "summary": asked.reference}


def _messages(asked: QuestionRecord) -> Written:
    return {"messages": _spoken(asked, "role", ("system", "user", "assistant"), "content")}


def _sharegpt(asked: QuestionRecord) -> Written:
    return {"conversations": _spoken(asked, "from", ("system", "human", "gpt"), "value")}


def _spoken(asked: QuestionRecord, speaker: str, roles: tuple[str, str, str], text: str) -> list[Written]:
    """Return all that is said, by turns; an answer that is context alone has the weight 0."""
    system, user, assistant = roles
    said: list[Written] = [{speaker: system, text: asked.system}] if asked.system else []
    learned = learned_answers(asked)
    for number, turn in enumerate(asked.turns):
        if turn.question:
            said.append({speaker: user, text: turn.question})
        weight = {} if number in learned or not turn.question else {"weight": 0}
        said.append({speaker: assistant, text: turn.answer, **weight})
    said.append({speaker: user, text: asked.last})
    if asked.reference is not None:
        said.append({speaker: assistant, text: asked.reference})
    return said


#: How a record is written in each form, by the name that `stats` gives it.
WRITERS: Mapping[str, Callable[[QuestionRecord], Written]] = {
    "alpaca": _alpaca,
    "literature": _literature,
    "med-chatglm": _med_chatglm,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "ptuning": _ptuning,
}


def converted(asked: QuestionRecord, form: str) -> Written:
    """Return the record in that form of `WRITERS`, its id and its fields without a use beside.

    Raises RecordError, naming what the form cannot hold.
    """
    written = WRITERS[form](asked)
    beside = {**({} if asked.id is None else {"id": asked.id}), **asked.extra}
    if taken := [name for name in beside if name in written]:
        raise _cannot_hold(form, say(f"字段 {taken[0]}", f"the field {taken[0]}"))
    try:
        again = parse_record({**written, **beside})
    except RecordError as error:
        raise _cannot_hold(form, str(error)) from None
    before, after = _held(asked), _held(again)
    if lost := [name for name, value in before.items() if after[name] != value]:
        raise _cannot_hold(form, say("、", ", ").join(lost))
    return {**written, **beside}


def learned_answers(asked: QuestionRecord) -> frozenset[int]:
    """Return the numbers of the answers that are learned: of `turns` from 0, then of the last one."""
    if not asked.is_conversation:
        return frozenset({len(asked.turns)})
    all_of_them = range(len(asked.turns) + (asked.reference is not None))
    return frozenset(number for number in all_of_them if number not in asked.unlearned)


def _held(asked: QuestionRecord) -> Mapping[str, Any]:
    """Return what a form has to hold, by what it is called in the interface language."""
    return {
        say("之前的对话", "earlier turns"): asked.turns,
        say("最后一问", "the last question"): asked.last,
        say("input", "input"): asked.input,
        say("系统提示", "the system text"): asked.system,
        say("答案", "the answer"): asked.reference,
        say("哪些回答要学习", "which answers are learned"): learned_answers(asked),
        say("多种问法", "several wordings"): asked.wordings,
        say("编号", "the id"): asked.id,
        say("其他字段", "other fields"): dict(asked.extra),
    }


def _cannot_hold(form: str, what: str) -> RecordError:
    return RecordError(
        say(f"{form} 格式放不下：{what}", f"{form} cannot hold: {what}"),
        say("换一种格式，如 --to messages", "use another form, such as --to messages"),
    )
