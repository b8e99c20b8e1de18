"""The slash commands of medical safety: the disclaimer, hotlines, masking, insisting in the demo."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import say
from medchat.medical_safety import disclaimer, hotlines
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _disclaimer(chat: Chat, words: str) -> None:
    chat.screen.show(disclaimer())


def _hotlines(chat: Chat, words: str) -> None:
    chat.screen.show(hotlines())


#: What `medchat.redaction.Personal` calls each kind, in both languages.
_KINDS = {
    "id": ("证件号", "ID numbers"),
    "card": ("卡号", "card numbers"),
    "phone": ("电话", "phone numbers"),
    "email": ("邮箱", "mail addresses"),
    "name": ("姓名", "names"),
}


def _redact(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    found = chat.exchange.call(_redacted)
    if not found:
        chat.screen.show(
            say(
                "没有找到要脱敏的内容。只认得证件号、卡号、电话、邮箱，以及“我叫……”这样说出的姓名。",
                "Nothing to mask was found. It knows ID, card and phone numbers, mail addresses, and names given"
                " as “my name is …”.",
            )
        )
        return
    counts = say("、", ", ").join(f"{say(*_KINDS[kind])} {count}" for kind, count in found.items())
    chat.screen.show(
        say(
            f"已脱敏：{counts}。本会话和保存的记录都已改过；屏幕上显示过的、发给远程模型的收不回来。请自己再看一遍：/历史",
            f"Masked: {counts}. This conversation and what is saved of it are changed; what the screen showed and what"
            " was sent to a remote model cannot be taken back. Check it yourself: /history",
        )
    )


def _redacted(session: ChatSession) -> dict[str, int]:
    from medchat.redaction import (  # compiling its patterns would delay the first prompt
        find_personal,
        redact,
    )

    texts = [text for turn in session.conversation.turns for text in (turn.question, turn.answer)]
    texts.append(session.conversation.system)
    said, elsewhere = set(texts), set[str]()

    def masked(text: str) -> str:
        if text not in said:  # of another branch, or a line that was not sent
            elsewhere.add(text)
        return redact(text)

    session.rewrite(masked)  # even if none is left: the disk may not have been cleared the last time
    kinds = Counter(str(span.kind) for text in (*texts, *elsewhere) for span in find_personal(text))
    return {kind: kinds[kind] for kind in _KINDS if kinds[kind]}


def _insist(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    refused = chat.exchange.call(lambda session: session.gate.refused if session.gate else "")
    if not refused:
        raise UsageError(
            say("刚才没有被拒绝的问题", "no question was refused just now"),
            say("先问一个问题", "ask one first"),
        )
    chat.show_answer(lambda session, cancel: session.ask(refused, cancel, insist=True))


MEDICAL_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand("disclaimer", "声明", "", "完整使用声明", "the full disclaimer", _disclaimer),
    ReplCommand("hotlines", "热线", "", "紧急电话", "emergency numbers", _hotlines),
    ReplCommand(
        "redact",
        "脱敏",
        "",
        "遮住本会话里的证件号、电话、姓名等",
        "mask ID and phone numbers and names in this chat",
        _redact,
        more=(
            "本会话、保存的记录和输入历史都会改，改后不能恢复。",
            "It changes this conversation, what is saved of it and the input history, and cannot be undone.",
        ),
    ),
)

#: With a model that refuses what it has not learned.
INSIST: ReplCommand[Chat] = ReplCommand(
    "insist",
    "硬答",
    "",
    "让演示模型照样回答刚才没学过的问题，内容没有意义",
    "make the demo answer what it refused: it will mean nothing",
    _insist,
)
