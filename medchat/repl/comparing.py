"""`/compare`: asks another model or adapter the same question and shows both answers.

Side by side if the terminal is wide enough and can redraw, else one after another. Nothing of it is saved.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from medchat.api import Conversation, Finish, GenerationConfig
from medchat.chat.collaborators import NoRecorder
from medchat.chat.events import Event
from medchat.chat.gathered import AnswerRequest
from medchat.chat.loading import Loading, LoadingCancelled
from medchat.chat.session import ChatSession
from medchat.chat.text_checks import check_question
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl import offers
from medchat.repl.model_commands import control_of
from medchat.repl.screen import Screen
from medchat.repl.slash import ReplCommand
from medchat.repl.typed_paths import path_and_rest

if TYPE_CHECKING:
    from medchat.repl.chat import Chat
    from medchat.repl.columns import Columns

_BASE = ("base", "底座")
_ADAPTER, _MODEL = ("adapter", "适配器"), ("model", "模型")


@dataclass(frozen=True, slots=True)
class Other:
    """The other model: the changes of settings that select it, and its name."""

    changes: Mapping[str, Any]
    label: str


def _compare(chat: Chat, words: str) -> None:
    control_of(chat)
    if not chat.exchange.ready():
        return
    other, typed = _understood(chat, words)
    conversation = chat.exchange.call(lambda session: session.conversation)
    request, loading = _asked(chat, typed, conversation), Loading()
    labels = (chat.model_label, other.label)
    shown = _columns(chat.screen, labels)
    try:
        if not typed:
            _show_given(chat, shown, labels[0], conversation.turns[-1].answer)
        elif not _answered(chat, shown, labels[0], lambda s, cancel: _own(s, request, cancel)):
            return
        if shown is not None:
            shown.next()
        _answered(
            chat,
            shown,
            labels[1],
            lambda s, cancel: _others(chat, s, other, request, loading, cancel),
            loading,
        )
    finally:
        if shown is not None:
            shown.finish()
        chat.screen.tell(
            say("对比的回答不进入对话。", "What was compared does not become part of the conversation.")
        )


def _asked(chat: Chat, typed: str, conversation: Conversation) -> AnswerRequest:
    """Return the request for both, its settings still to be filled in. Raises UsageError if there is no question."""
    if typed:
        check_question(typed, chat.startup.max_question_bytes)
        return AnswerRequest(typed, GenerationConfig(), conversation)
    if not conversation.turns:
        raise UsageError(
            say("还没有可以对比的问题", "there is no question to compare yet"),
            say("写在命令后面：/对比 头痛怎么办？", "write it after the command: /compare QUESTION"),
        )
    return AnswerRequest(conversation.turns[-1].question, GenerationConfig(), conversation.without_last())


def _columns(screen: Screen, labels: tuple[str, str]) -> Columns | None:
    """Return two columns of the screen, None if it is too narrow or cannot redraw."""
    from medchat.repl.columns import (
        NARROWEST,
        Columns,
        DrawingScreen,
    )  # importing rich would delay the first prompt

    if screen.width >= NARROWEST and isinstance(screen, DrawingScreen):
        return Columns(screen, labels)
    return None


def _show_given(chat: Chat, shown: Columns | None, label: str, answer: str) -> None:
    """Show the answer that is in the conversation already."""
    screen = shown or chat.screen
    if shown is None:
        chat.screen.tell(label)
    screen.piece(answer)
    screen.end_answer()


def _answered(
    chat: Chat, shown: Columns | None, label: str, ask: Any, loading: Loading | None = None
) -> bool:
    """Show an answer; return whether it ended by itself, not stopped by the user."""
    if shown is None:
        chat.screen.tell(label)
    view = chat.show_answer(ask, shown, loading)
    if view.stopped_early and loading is not None and not loading.ended:
        chat.screen.tell(say("已取消加载。", "Loading was cancelled."))
    return view.answered is not None and (view.looped or view.answered.turn.finish is not Finish.CANCELLED)


def _own(session: ChatSession, request: AnswerRequest, cancel: threading.Event) -> Iterator[Event]:
    own = replace(session, recorder=NoRecorder(), listeners=(), notices_shown=set(session.notices_shown))
    yield from own.answer(replace(request, config=own.config), cancel)


def _others(
    chat: Chat,
    session: ChatSession,
    other: Other,
    request: AnswerRequest,
    loading: Loading,
    cancel: threading.Event,
) -> Iterator[Event]:
    loading.stop = cancel  # Ctrl-C stops the loading, as it stops the answer
    command = say("/对比", "/compare")
    with (
        suppress(LoadingCancelled),
        control_of(chat).beside(session, other.changes, command, loading) as beside,
    ):
        loading.ended = True
        yield from beside.answer(replace(request, config=beside.config), cancel)


def _understood(chat: Chat, words: str) -> tuple[Other, str]:
    """Return the other model and the question, "" for the last one. Raises UsageError if that is ambiguous."""
    first, _, rest = words.partition(" ")
    path, question = path_and_rest(rest.strip()) if first in (*_ADAPTER, *_MODEL) else ("", "")
    control = control_of(chat)
    if first in _BASE:
        return Other({"adapter": ()}, say("底座", "the base")), rest.strip()
    if first in _ADAPTER and path:
        return Other({"adapter": (path,)}, f"+ {PurePath(path).name}"), question
    if first in _MODEL and path:
        return Other(control.as_model(path), PurePath(path).name), question
    if control.adapters:
        return Other({"adapter": ()}, say("底座", "the base")), words
    raise UsageError(
        say("没有使用适配器，请指定与什么对比", "no adapter is in use: name what to compare with"),
        say(
            "/对比 适配器 目录 [问题]，或 /对比 模型 目录 [问题]",
            "/compare adapter FOLDER [question], or /compare model FOLDER [question]",
        ),
    )


COMPARE_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "compare",
        "对比",
        "[base|adapter path|model path] [question]",
        "同一个问题问另一个模型或适配器",
        "ask another model or adapter the same",
        _compare,
        more=(
            "底座：不用适配器的模型。不写问题则用上一个。屏幕够宽时左右并排。两个回答都不进入对话。",
            "base: the model without adapters. Without a question the last one is taken. Neither answer is kept.",
        ),
        examples=(
            "/对比 适配器 ~/weights/bentsao 头痛怎么办？",
            "/compare base What helps against a headache?",
        ),
        complete=offers.compared,
    ),
)
