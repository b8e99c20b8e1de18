"""Revising a conversation: editing a turn, continuing an answer, switching to another branch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from medchat.api import Conversation, Finish, Turn
from medchat.chat.events import AnswerContext, Event, TurnStats
from medchat.chat.gathered import AnswerRequest
from medchat.chat.session import ChatSession
from medchat.chat.text_checks import check_question
from medchat.errors import UsageError
from medchat.language import say


def turn_numbered(session: ChatSession, number: int) -> Turn:
    """Return turn `number`, from 1. Raises UsageError if there is none."""
    turns = session.conversation.turns
    if not turns:
        raise UsageError(say("还没有对话", "nothing has been said yet"), say("先问一个问题", "ask one first"))
    if not 1 <= number <= len(turns):
        raise UsageError(
            say(f"没有第 {number} 轮", f"there is no turn {number}"),
            say(f"可选 1 到 {len(turns)}：/历史", f"choose from 1 to {len(turns)}: /history"),
        )
    return turns[number - 1]


def edit_question(
    session: ChatSession, number: int, question: str, cancel: threading.Event
) -> Iterator[Event]:
    """Answer `question`, replacing turn `number` and all after it, which stay as another branch.

    An answer that is stopped before its first word changes nothing. Raises UsageError if there is no such
    turn.
    """
    check_question(question, session.max_question_bytes)
    turn_numbered(session, number)
    before = _first(session.conversation, number - 1)
    replaced = len(session.conversation.turns) - number + 1
    yield from session.answer(AnswerRequest(question, session.config, before, instead_of=replaced), cancel)


def edit_answer(session: ChatSession, number: int, answer: str) -> Turn:
    """End the conversation with turn `number` and this answer; the old turns stay as another branch."""
    turn = replace(turn_numbered(session, number), answer=answer, finish=Finish.STOP)
    replaced = len(session.conversation.turns) - number + 1
    context = AnswerContext(session.config, edited=True)
    session.recorder.save(turn, TurnStats(), context, instead_of=replaced)
    session.conversation = _first(session.conversation, number - 1).with_turn(turn)
    session.tell_listeners(turn)
    return turn


def go_on(session: ChatSession, cancel: threading.Event) -> Iterator[Event]:
    """Continue the last answer where it was cut off; the events contain the new part.

    Raises UsageError if the answer is complete or there is none, or if the model cannot continue.
    """
    turn = turn_numbered(session, max(1, len(session.conversation.turns)))
    if turn.finish is Finish.STOP or not turn.answer:
        raise UsageError(
            say("上一个回答没有中断，不需要续写", "the last answer was not cut off"),
            say("再问一个问题，或用 /重答", "ask another question, or /regen"),
        )
    before = session.conversation.without_last()
    request = AnswerRequest(turn.question, session.config, before, begun=turn.answer, insist=True)
    yield from session.answer(request, cancel)


def redo(session: ChatSession, count: int = 1) -> tuple[Turn, ...]:
    """Redo `count` undone turns, else switch to the next branch; return the turns that were added.

    Raises UsageError if there is neither.
    """
    return _go_to(session, session.recorder.redo(count))


def switch(session: ChatSession, position: int, way: int) -> tuple[Turn, ...]:
    """Switch to an alternative of `session.recorder.branches()`; return the turns that were added.

    Raises UsageError if there is none.
    """
    return _go_to(session, session.recorder.switch(position, way))


def _go_to(session: ChatSession, turns: Sequence[Turn] | None) -> tuple[Turn, ...]:
    if turns is None:
        raise UsageError(
            say("没有可以恢复的内容，也没有别的分支", "there is nothing to bring back and no other branch"),
            say("查看已有各轮：/历史", "list them: /history"),
        )
    before = session.conversation.turns
    session.conversation = replace(session.conversation, turns=tuple(turns))
    same = 0
    while same < min(len(before), len(turns)) and before[same] == turns[same]:
        same += 1
    return tuple(turns[same:])


def _first(conversation: Conversation, count: int) -> Conversation:
    return replace(conversation, turns=conversation.turns[:count])
