"""Conversations as data holds them: messages with roles, pairs, or texts by turns, from whichever maker.

Neighbours of one role are joined. What the assistant says first is context; a last word of the user that
nobody answers is the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from medchat.api import Turn
from medchat.datafiles.fields import MODEL_SIDE, USER_SIDE, RecordError, is_empty
from medchat.language import say

_ROLES = {
    name: role
    for role, names in {
        "user": "user human prompter customer patient 用户 患者 病人 问 q",
        "assistant": "assistant gpt chatgpt bot chatbot model ai claude gemini bard bing doctor 助手 助理 医生 答 a",
        "system": "system developer 系统",
    }.items()
    for name in names.split()
}
_ROLE_KEYS = ("role", "from", "speaker", "author")
_TEXT_KEYS = ("content", "value", "text", "message", "utterance", "sentence", "parts")
#: Whether an answer is learned: 0 or 1, false or true.
_WEIGHT_KEYS = ("weight", "loss", "train")
#: The two sides of an element that is a question and its answer.
_ASKED_KEYS = (*USER_SIDE, "question", "query", "prompt", "instruction", "input", "q", "问", "问题")
_SAID_KEYS = (*MODEL_SIDE, "answer", "response", "output", "a", "答", "答案", "回答")
#: CMB-Clin's newer name for the answer to a question about a case.
_SOLUTION = "solution"
#: How texts by turns say who speaks.
_SPEAKERS = {
    "问题": "user",
    "回答": "assistant",
    **{name: role for name, role in _ROLES.items() if role != "system"},
}
_PREFIX = re.compile(rf"\s*({'|'.join(sorted(_SPEAKERS, key=len, reverse=True))})\s*[:：]\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A conversation. After `turns` the user says `last` ("" if nothing), to which `answer` is the answer.

    A first turn without a question is what the assistant said first. `unlearned` are the numbers of answers
    that are context alone: those of `turns` from 0, and `len(turns)` for `answer`. `unused` names keys of
    messages that nothing was made of.
    """

    turns: tuple[Turn, ...] = ()
    last: str = ""
    answer: str | None = None
    system: str = ""
    unlearned: frozenset[int] = frozenset()
    unused: tuple[str, ...] = ()

    def as_past(self) -> Spoken:
        """Return it as what was said before a question: an answer at its end is a turn like the others."""
        if self.answer is None:
            return self
        return Spoken((*self.turns, Turn(self.last, self.answer)), system=self.system, unused=self.unused)


@dataclass(slots=True)
class _Message:
    role: str
    text: str
    learned: bool = True


@dataclass
class _Reading:
    """Reads the elements of the field `name`; messages are counted from 1 in what is said of them."""

    name: str
    unused: dict[str, None] = field(default_factory=dict)

    def messages(self, elements: list[Any], *, texts: bool) -> Iterator[tuple[int, _Message]]:
        if texts and elements and all(isinstance(element, str) for element in elements):
            yield from enumerate(_by_turns(elements), start=1)
            return
        for number, element in enumerate(elements, start=1):
            for message in self.of_element(number, element):
                yield number, message

    def of_element(self, number: int, element: Any) -> list[_Message]:
        if isinstance(element, list) and len(element) == 2:
            asked, said = (self.text(number, part) for part in element)
            return [_Message("user", asked), _Message("assistant", said)]
        if not isinstance(element, dict):
            raise self.error(
                number,
                say(
                    "应当是带角色的消息，或一问一答",
                    "must be a message with a role, or a question and its answer",
                ),
            )
        keys = {str(key).strip().casefold(): key for key in element}
        role_key = next((keys[key] for key in _ROLE_KEYS if key in keys), None)
        return (
            self.pair(number, element, keys)
            if role_key is None
            else [self.message(number, element, keys, role_key)]
        )

    def message(self, number: int, element: dict[str, Any], keys: dict[str, str], role_key: str) -> _Message:
        said = element[role_key]
        role = _ROLES.get(said.strip("<|> \t\n").casefold()) if isinstance(said, str) else None
        if role is None:
            raise self.error(number, say(f"未知的角色“{said}”", f"unknown role {said!r}"))
        text_key = next((keys[key] for key in _TEXT_KEYS if key in keys), None)
        weight_key = next((keys[key] for key in _WEIGHT_KEYS if key in keys), None)
        self.note_unused(element, (role_key, text_key, weight_key))
        text = self.text(number, element.get(text_key) if text_key else None)
        return _Message(role, text, self.weight(number, element.get(weight_key) if weight_key else None))

    def pair(self, number: int, element: dict[str, Any], keys: dict[str, str]) -> list[_Message]:
        sides = [("system", ("system",)), ("user", _ASKED_KEYS), ("assistant", _SAID_KEYS)]
        found: list[_Message] = []
        used: list[str] = []
        said = {name: key for name, key in keys.items() if not is_empty(element[key])}
        for role, names in sides:
            there = [said[name] for name in names if name in said]
            if role == "assistant" and not there and _SOLUTION in said:
                there = [said[_SOLUTION]]
            if len(there) > 1:
                both = say("、", ", ").join(there)
                raise self.error(number, say(f"{both} 是同一方说的话", f"{both} belong to the same side"))
            used += there
            found += [_Message(role, self.text(number, element[key])) for key in there]
        if not any(message.role != "system" for message in found):
            raise self.error(number, say("没有角色（role 或 from）", "there is no role (role or from)"))
        self.note_unused(element, used)
        return found

    def note_unused(self, element: dict[str, Any], used: Any) -> None:
        for key, value in element.items():
            if key not in used and not is_empty(value):
                self.unused[f"{self.name}[].{key}"] = None

    def weight(self, number: int, value: Any) -> bool:
        if value is None or (isinstance(value, (bool, int, float)) and value in (0, 1)):
            return value != 0
        raise self.error(
            number, say(f"weight 应当是 0 或 1，不是“{value}”", f"weight must be 0 or 1, not {value!r}")
        )

    def text(self, number: int, value: Any) -> str:
        """Return the text of a message: a text, or texts in parts."""
        if isinstance(value, list) and value:
            value = "\n".join(self.part(number, part) for part in value)
        if not isinstance(value, str):
            raise self.error(number, say("内容应当是文本", "its content must be text"))
        if not value.strip():
            raise self.error(number, say("内容是空的", "its content is empty"))
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise self.error(number, say("不是有效的 Unicode 文本", "not valid Unicode text")) from None
        return value

    def part(self, number: int, part: Any) -> str:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            return text
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise self.error(
            number, say(f"内容里有非文本的部分（{kind}）", f"a part of its content is not text ({kind})")
        )

    def error(self, number: int, reason: str) -> RecordError:
        return RecordError(
            say(f"{self.name} 第 {number} 条：{reason}", f"{self.name}, message {number}: {reason}")
        )


def is_message(value: Any) -> bool:
    """Whether the value is one message of a conversation: somebody with a known role says something."""
    if not isinstance(value, dict):
        return False
    keys = {str(key).strip().casefold(): key for key in value}
    said = (value[keys[key]] for key in _ROLE_KEYS if key in keys)
    known = any(isinstance(role, str) and role.strip("<|> \t\n").casefold() in _ROLES for role in said)
    return known and any(key in keys for key in _TEXT_KEYS)


def parse_case(name: str, value: Any, case: str) -> Spoken:
    """Return the questions about one case and their answers as a conversation, the case before the first question.

    Every question has an answer, but the last one need not. Raises RecordError, with the number of the pair.
    """
    reading = _Reading(name)
    for number, pair in enumerate(value if isinstance(value, list) else (), start=1):
        roles = [message.role for message in reading.of_element(number, pair)]
        if roles != ["user", "assistant"][: len(roles)] or (len(roles) == 1 and number < len(value)):
            raise reading.error(number, say("应当是一个问题和它的答案", "must be a question and its answer"))
    spoken = parse_conversation(name, value, texts=False)
    if not case:
        return spoken
    if not spoken.turns:
        return replace(spoken, last=f"{case}\n{spoken.last}")
    first = replace(spoken.turns[0], question=f"{case}\n{spoken.turns[0].question}")
    return replace(spoken, turns=(first, *spoken.turns[1:]))


def _by_turns(texts: list[str]) -> list[_Message]:
    """Texts that each say who speaks, or the user's and the assistant's by turns."""
    marks = [_PREFIX.match(text) for text in texts]
    if all(marks):
        found = [(mark, text) for mark, text in zip(marks, texts, strict=True) if mark]
        return [_Message(_SPEAKERS[mark[1].casefold()], text[mark.end() :]) for mark, text in found]
    return [_Message(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]


def parse_conversation(name: str, value: Any, *, texts: bool = True) -> Spoken:
    """Return the conversation in the field `name`; `texts`: a list of texts by turns is one too.

    Raises RecordError, with the number of the message that is wrong.
    """
    if not isinstance(value, list):
        raise RecordError(say(f"{name} 应当是一个列表", f"{name} must be a list"))
    reading = _Reading(name)
    system, said = _joined(reading, reading.messages(value, texts=texts))
    if not said:
        raise RecordError(say(f"{name} 里没有任何消息", f"{name} holds no messages"))
    if said[0].role == "assistant":
        said.insert(0, _Message("user", ""))
        said[1].learned = False
    last = said.pop() if said[-1].role == "user" else None
    turns = [Turn(asked.text, answer.text) for asked, answer in zip(said[::2], said[1::2], strict=True)]
    unlearned = frozenset(number for number, answer in enumerate(said[1::2]) if not answer.learned)
    unused = tuple(reading.unused)
    if last is not None or (turns and not turns[-1].question):
        return Spoken(tuple(turns), last.text if last else "", None, system, unlearned, unused)
    final = turns.pop()
    return Spoken(tuple(turns), final.question, final.answer, system, unlearned, unused)


def _joined(reading: _Reading, messages: Iterator[tuple[int, _Message]]) -> tuple[str, list[_Message]]:
    """Return the system text, and who says what by turns."""
    system: list[str] = []
    said: list[_Message] = []
    for number, message in messages:
        if message.role == "system":
            if said:
                raise reading.error(
                    number, say("system 只能在开头", "system messages may stand only at the beginning")
                )
            system.append(message.text)
        elif said and said[-1].role == message.role:
            if message.role == "assistant" and said[-1].learned != message.learned:
                raise reading.error(
                    number, say("相连的回答 weight 不同", "consecutive answers differ in weight")
                )
            said[-1].text += "\n" + message.text
        else:
            said.append(message)
    return "\n".join(system), said
