"""Editing a question or an answer: which one is meant, its text in the prompt, and applying the change."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medchat.chat.revising import edit_answer, edit_question, turn_numbered
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl import messages
from medchat.repl.chat import Chat, Edit
from medchat.repl.screen import untrusted
from medchat.repl.slash import SLASHES

_QUESTION = ("问", "问题", "q", "question")
_ANSWER = ("答", "回答", "a", "answer")
_WORDS = re.compile(r"(\d+)?\s*([^\s\d]\S*)?(?:\s+(\S.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Part:
    """The question or the answer of turn `number`, from 1, with its present text."""

    number: int
    of_answer: bool
    text: str

    @property
    def label(self) -> str:
        what = say("回答", "answer") if self.of_answer else say("问题", "question")
        return say(
            f"正在编辑第 {self.number} 轮的{what}（Ctrl-C 放弃）",
            f"editing the {what} of turn {self.number} (Ctrl-C cancels)",
        )

    @property
    def draft(self) -> str:
        """The text without characters that a prompt cannot hold; a leading slash is doubled."""
        text = untrusted(self.text)
        return text[0] + text if text.startswith(SLASHES) else text


def begin_edit(chat: Chat, words: str) -> None:
    """Put the text that `words` name into the prompt, or edit it at once if the new text follows.

    Raises UsageError for what names no turn.
    """
    found = _WORDS.fullmatch(words.strip())
    number, side, text = found.groups() if found else (None, words, None)
    if side and side.lower() not in (*_QUESTION, *_ANSWER):
        raise UsageError(
            say(f"无法理解 /编辑 {untrusted(words[:40])}", f"cannot read /edit {untrusted(words[:40])}"),
            say("例如：/编辑 2 问、/编辑 答", "for example: /edit 2 q, /edit a"),
        )
    if not chat.exchange.ready():
        return
    turns = chat.exchange.call(lambda session: session.conversation.turns)
    which = int(number) if number else max(1, len(turns))
    turn = chat.exchange.call(lambda session: turn_numbered(session, which))
    of_answer = bool(side) and side.lower() in _ANSWER
    part = _Part(which, of_answer, turn.answer if of_answer else turn.question)
    change = _change_answer if of_answer else _change_question
    if text:
        change(chat, part, text)
    else:
        chat.edit, chat.draft = Edit(part.label, lambda text: change(chat, part, text)), part.draft
        chat.screen.tell(part.label)


def _change_question(chat: Chat, part: _Part, text: str) -> bool:
    """Ask `text` instead. False if it was not answered and can be sent again."""
    view = chat.show_answer(lambda session, cancel: edit_question(session, part.number, text, cancel))
    if view.stopped_early:
        chat.screen.tell(messages.nothing_said())
    return not view.stopped_early and (view.error is None or view.text_came)


def _change_answer(chat: Chat, part: _Part, text: str) -> bool:
    """Set the answer to `text`."""
    if text in (part.text, untrusted(part.text)):
        chat.screen.tell(say("回答没有改动", "the answer is as it was"))
        return True
    after = chat.exchange.call(lambda session: len(session.conversation.turns)) - part.number
    chat.exchange.call(lambda session: edit_answer(session, part.number, text))
    followed = say(f"和之后的 {after} 轮", f" and the {after} after it") if after else ""
    chat.screen.show(
        say(
            f"第 {part.number} 轮的回答已改，对话从这里继续；原来的回答{followed}在另一分支（/分支）。",
            f"The answer of turn {part.number} is changed, and the conversation goes on from here; the former"
            f" one{followed} is on another branch (/branch).",
        )
    )
    return True
