"""What one record of a data file asks: the published forms of question data, told apart by their keys.

Alpaca and BenTsao (`instruction`, `input`, `output`), question files (`question`), Med-ChatGLM
(`context`, `target`), ChatGLM's P-tuning data (`content`, `summary`, `history`), OpenAI `messages`,
ShareGPT `conversations`, and a bare text. A text in the literature data's own dialogue form
(` <user>: … <bot>: … <user>: …`) is taken apart into earlier turns and a last question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medchat.api import Turn
from medchat.language import say

QUESTION_KEYS = ("question", "instruction", "query", "prompt", "content", "context", "问题")
REFERENCE_KEYS = (
    "reference",
    "answer",
    "output",
    "response",
    "completion",
    "summary",
    "target",
    "答案",
    "回答",
)
MESSAGE_KEYS = ("messages", "conversations")
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "system": "system",
}
#: The published data puts one space on each side of a mark; the published demo does not always.
_MARKS = re.compile(r" ?<(user|bot)>: ?")
#: Med-ChatGLM's training data holds its questions inside their prompt.
_CONTEXT = re.compile(r"问题：(?P<question>.*)\n回答[:：] ?", re.DOTALL)


def is_field(name: str) -> bool:
    """Whether a record's field of that name means something here."""
    return name.strip().casefold() in (*QUESTION_KEYS, *REFERENCE_KEYS, "input", *MESSAGE_KEYS)


class RecordError(ValueError):
    """The record asks nothing that can be understood; the message says why."""


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """What a record asks. `text` is the question as the file has it, `last` what is asked after `turns`.

    `is_dialogue` says that `text` is itself a dialogue with all of the turns in it.
    """

    text: str
    last: str
    input: str = ""
    turns: tuple[Turn, ...] = ()
    is_dialogue: bool = False
    system: str = ""
    reference: Any = None
    id: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def parse_record(value: Any) -> QuestionRecord:
    """Return what the JSON value asks. Raises RecordError."""
    if isinstance(value, str):
        return text_value(value)
    if not isinstance(value, dict):
        raise RecordError(say("应当是一个 JSON 对象或文本", "must be a JSON object or a text"))
    fields = dict(value)
    messages = _take(fields, MESSAGE_KEYS)
    asked = _from_messages(messages) if messages is not None else _from_fields(fields)
    reference = _take(fields, REFERENCE_KEYS)
    system = _text(fields.pop("system", None) or "", "system")
    extra_input = _text(fields.pop("input", None) or "", "input")
    identifier = fields.pop("id", None)
    return QuestionRecord(
        text=_not_blank(asked.text),
        last=_not_blank(asked.last),
        input=extra_input,
        turns=asked.turns,
        is_dialogue=asked.is_dialogue,
        system=asked.system or system,
        reference=asked.reference if reference in (None, "") else reference,
        id=identifier,
        extra=fields,
    )


def text_value(text: str) -> QuestionRecord:
    """Return what a text asks: itself, or the last question of the dialogue in it. Raises RecordError."""
    asked = _from_text(text)
    _not_blank(asked.last)
    return asked


def _from_text(text: str) -> QuestionRecord:
    said = split_dialogue(_not_blank(text))
    if not said:
        return QuestionRecord(text, text)
    turns = tuple(Turn(said[number], said[number + 1]) for number in range(0, len(said) - 1, 2))
    return QuestionRecord(text, said[-1], turns=turns, is_dialogue=True)


def split_dialogue(text: str) -> tuple[str, ...]:
    """Return what was said by turns in a text of the literature data's form, nothing if it is not of that form.

    It begins with the user's mark and ends with a question of the user.
    """
    before, *rest = _MARKS.split(text)
    speakers, said = rest[::2], rest[1::2]
    by_turns = [("user", "bot")[number % 2] for number in range(len(speakers))]
    return () if before or len(speakers) % 2 == 0 or speakers != by_turns else tuple(said)


def _from_fields(fields: dict[str, Any]) -> QuestionRecord:
    key = next((name for name in QUESTION_KEYS if fields.get(name) is not None), None)
    if key is None:
        names = ", ".join((*QUESTION_KEYS[:4], *MESSAGE_KEYS))
        raise RecordError(
            say(f"没有问题：需要 {names} 之一", f"there is no question: one of {names} is needed")
        )
    text = _text(fields.pop(key), key)
    if key == "context" and (framed := _CONTEXT.fullmatch(text)):
        text = framed["question"]
    asked, history = _from_text(text), _history(fields.pop("history", None))
    if history:
        return replace(asked, turns=(*history, *asked.turns), is_dialogue=False)
    return asked


def _history(value: Any) -> tuple[Turn, ...]:
    if value in (None, ""):
        return ()
    pairs: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise RecordError(
            say(
                "history 应当是 [[问, 答], …] 形式的列表",
                "history must be a list like [[question, answer], …]",
            )
        )
    return tuple(Turn(_text(asked, "history"), _text(answer, "history")) for asked, answer in pairs)


def _from_messages(messages: Any) -> QuestionRecord:
    said = [_message(message) for message in messages] if isinstance(messages, list) else []
    system = said.pop(0)[1] if said and said[0][0] == "system" else ""
    reference = said.pop()[1] if said and said[-1][0] == "assistant" else None
    roles = [role for role, _ in said]
    if not said or roles != [("user", "assistant")[number % 2] for number in range(len(roles))]:
        raise RecordError(
            say(
                "消息应当以 user 开头，user 与 assistant 交替",
                "messages must begin with user, then assistant and user by turns",
            )
        )
    texts = [text for _, text in said]
    turns = tuple(Turn(texts[number], texts[number + 1]) for number in range(0, len(texts) - 1, 2))
    return QuestionRecord(texts[-1], texts[-1], turns=turns, system=system, reference=reference)


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RecordError(say("每条消息应当是一个 JSON 对象", "each message must be a JSON object"))
    role = message.get("role", message.get("from"))
    if role not in _ROLES:
        raise RecordError(say(f"不认识的角色 {role!r}", f"unknown role {role!r}"))
    return _ROLES[role], _text(message.get("content", message.get("value")), "content")


def _take(fields: dict[str, Any], names: Sequence[str]) -> Any:
    """Remove and return the first of `names` that has a value."""
    for name in names:
        if fields.get(name) is not None:
            return fields.pop(name)
    return None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RecordError(say(f"{name} 应当是文本", f"{name} must be text"))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError(
            say(f"{name} 不是有效的 Unicode 文本", f"{name} is not valid Unicode text")
        ) from None
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise RecordError(say("问题是空的", "the question is empty"))
    return _text(text, "question")
