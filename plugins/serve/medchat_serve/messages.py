"""The messages of a chat completion as a conversation and a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medchat.plugin_kit import Conversation, Turn, say
from medchat_serve.api_error import ApiError

_SYSTEM = ("system", "developer")
#: What stands between several texts of one side in a row.
_BETWEEN = "\n"


@dataclass(frozen=True, slots=True)
class AskedMessages:
    """A question after a conversation; `ignored` names the messages that took no part."""

    question: str
    conversation: Conversation
    ignored: tuple[str, ...] = ()


def conversation_in(messages: list[Any], most: int) -> AskedMessages:
    """Return the conversation in a list of messages, at most so many. Raises ApiError naming the message.

    Texts of one side in a row belong together; what an assistant says before the first question (a greeting that
    the client made up) takes no part.
    """
    _check_number(messages, most)
    system: list[str] = []
    turns: list[tuple[list[str], list[str]]] = []
    ignored: list[str] = []
    for place, role, text in _texts(messages):
        if role in _SYSTEM:
            system.append(text)
        elif role == "assistant":
            if turns:
                turns[-1][1].append(text)
            else:
                ignored.append(place)
        elif turns and not turns[-1][1]:
            turns[-1][0].append(text)
        else:
            turns.append(([text], []))
    if not turns or turns[-1][1]:
        raise _bad("messages", say("最后一条应是 user 的问题", "the last one must be the user's question"))
    *before, (question, _) = turns
    said = tuple(Turn(_BETWEEN.join(asked), _BETWEEN.join(answered)) for asked, answered in before)
    conversation = Conversation(said, _BETWEEN.join(filter(None, system)))
    return AskedMessages(_BETWEEN.join(question), conversation, tuple(ignored))


def _check_number(messages: list[Any], most: int) -> None:
    if not messages:
        raise _bad("messages", say("应为非空的数组", "must not be empty"), "invalid_type")
    if len(messages) > most:
        number = len(messages)
        many = say(f"有 {number} 条，最多 {most} 条", f"there are {number}, at most {most} are taken")
        raise _bad("messages", many, "too_many_messages")


def _texts(messages: list[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the role and the text of each message."""
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, dict):
            raise _bad(place, say("应为对象", "must be an object"), "invalid_type")
        role = message.get("role")
        if role not in (*_SYSTEM, "user", "assistant"):
            raise _bad(
                f"{place}.role", say("只支持 system、user、assistant", "must be system, user or assistant")
            )
        text = _text(f"{place}.content", message.get("content"), optional=role == "assistant")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _bad(
                f"{place}.content", say("不是有效的 Unicode 文本", "is no valid Unicode text")
            ) from None
        yield place, str(role), text


def _text(place: str, content: object, *, optional: bool) -> str:
    if content is None and optional:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _bad(place, say("应为文本", "must be a text"), "invalid_type")
    return "".join(_part(f"{place}[{number}]", part) for number, part in enumerate(content))


def _part(place: str, part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise _bad(place, say("这个模型只读文本", "this model reads text alone"))


def _bad(place: str, why: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, f"{place}{say('：', ': ')}{why}", code, place)
