"""`medchat chat`: a conversation, on a terminal or one question an input line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from medchat.chat.conversation import PreparedChat, prepare_conversation
from medchat.chat.loading import Loading
from medchat.chat.model_control import ModelControl
from medchat.chat.saved_sessions import SavedSessions
from medchat.chat.session import ChatSession
from medchat.chat.session_choice import SessionChoice, disclaimer_lines, model_notes
from medchat.cli.model_command import ModelCommand
from medchat.cli.native_output import HeldNativeOutput
from medchat.cli.options import generation_flags, model_flags, session_flags
from medchat.cli.output import answer_stream, say_aside
from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.repl import Startup, run_lines, run_repl
from medchat.repl.messages import resumed_lines
from medchat.sanitize import sanitize_line
from medchat.store import SessionFilter, SessionStore

#: The number of earlier questions in the line editor's history.
PAST_INPUTS = 1000


@click.command(
    cls=ModelCommand,
    help=say(
        "多轮对话。没有终端时，每行输入是一个问题，标准输出只有回答。",
        "Chat, with history. Without a terminal each input line is a question; stdout carries only the answers.",
    ),
)
@model_flags
@generation_flags
@session_flags
@click.option("--style", type=click.Choice(["rich", "plain"]), help=say("显示样式", "how answers look"))
@click.option(
    "--quiet", is_flag=True, help=say("回答下方不显示用量与速度", "hide the statistics under the answers")
)
@click.pass_context
def command(context: click.Context, /, **flags: Any) -> int:
    """Hold a conversation."""
    if flags["resume"] == "":
        picked = _picked(str(flags["style"] or "rich"))
        if picked is None:
            return 0
        flags["resume"] = picked
    on_terminal()  # before the disclaimer is marked as shown, or anything is loaded
    choice = SessionChoice(flags["session"], flags["continue_"], flags["resume"], not flags["no_save"])
    prepared = prepare_conversation(flags, choice, say_aside)
    if flags["quiet"]:
        prepared.change({"footer": False}, "--quiet")
    debug = bool((context.obj or {}).get("debug"))
    try:
        with HeldNativeOutput():
            return hold(prepared, replace(startup_for(prepared), debug=debug))
    finally:
        prepared.store.close()


def _picked(style: str) -> str | None:
    """Return the id of the chat that the user picks, None for none; without a picker, list them.

    Raises UsageError in that case.
    """
    from medchat.commands.sessions.listing import print_sessions
    from medchat.repl.saved_commands import OFFERED
    from medchat.repl.terminal import may_redraw, pick_session

    with SessionStore.open() as store:
        chats = store.list(SessionFilter(with_asks=False), limit=OFFERED)
        if chats and on_terminal() and may_redraw(style):
            picked = pick_session(chats)
            return picked.id if picked else None
        print_sessions(store.list())
    raise UsageError(
        say("请指定要继续的会话编号", "name the session to continue"),
        "medchat chat --resume ID | medchat chat -c",
    )


def on_terminal() -> bool:
    """Whether there is a terminal to chat on. Raises UsageError if there is neither that nor piped input."""
    if sys.stdin is not None and sys.stdin.isatty() and answer_stream().isatty():
        return True
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            say("标准输出不是终端，无法交互对话", "stdout is not a terminal: no interactive chat"),
            say('单个问题请用：medchat ask "问题"', 'for one question: medchat ask "QUESTION"'),
        )
    return False


def hold(prepared: PreparedChat, startup: Startup) -> int:
    """Chat on the terminal, or line by line without one; return the exit code."""
    if on_terminal():
        exit_code = run_repl(startup)
        record = prepared.saved_session()
        if record is not None:
            name = sanitize_line(record.name or record.id, 60)
            say_aside(
                say(
                    f"会话已保存：{name}。接着聊：medchat chat -c",
                    f"saved as {name}; to go on: medchat chat -c",
                )
            )
        return exit_code
    return run_lines(startup, sys.stdin.buffer)


def startup_for(prepared: PreparedChat, *, banner: Sequence[str] = ()) -> Startup:
    """Return what the screen needs for a conversation with this model."""
    control, loading = ModelControl(prepared), Loading()

    def open_session() -> ChatSession:
        opening = prepared.opening  # another model may have been chosen meanwhile
        options = replace(opening.options, watch=loading.watch, quick_start=True)
        watched = replace(opening, options=options)
        return prepared.begin(watched.load(), guard_loops=True)

    sessions = SavedSessions(prepared)
    past_inputs: Sequence[str] = ()
    with suppress(MedchatError):  # see `disclaimer_lines`
        past_inputs = prepared.store.recent_inputs(PAST_INPUTS)

    def remember_input(text: str) -> None:
        with suppress(MedchatError):
            prepared.store.remember_input(text)

    return Startup(
        open_session=open_session,
        model_label=control.label,
        opening=[*banner, *_opening_lines(prepared)],
        style=str(prepared.settings.value("style")),
        past_inputs=past_inputs,
        remember_input=remember_input,
        new_session=sessions.new,
        session_label=sessions.label,
        sessions=sessions,
        ready_lines=lambda session: _ready_lines(prepared, sessions, session),
        slash_commands=prepared.slash_commands,
        early_notices=prepared.early_notices,
        max_question_bytes=int(prepared.settings.value("max_question_bytes")),
        loading=loading,
        control=control,
        footer=bool(prepared.settings.value("footer")),
        bell=bool(prepared.settings.value("bell")),
        theme=str(prepared.settings.value("theme")),
    )


def _opening_lines(prepared: PreparedChat) -> list[str]:
    return [
        *disclaimer_lines(prepared.store),
        *prepared.plugin_lines(),
        *prepared.opening.notices(in_chat=on_terminal()),
    ]


def _ready_lines(prepared: PreparedChat, sessions: SavedSessions, session: ChatSession) -> list[str]:
    lines = []
    if session.conversation.turns and prepared.record is not None:
        lines += resumed_lines(sessions, session)
    lines += model_notes(session.model)
    if prepared.demo is not None:
        lines.append(
            say(
                "这是演示模型，只回答它学过的问题（/题目）",
                "this is the demo model: it answers only what it has learned (/questions)",
            )
        )
    if prepared.store.path is None:
        lines.append(say("本次对话不会保存", "this conversation is not saved"))
    return lines
