"""What a chat starts with: everything that the terminal is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medchat.api import Conversation, Notice, SlashCommand
from medchat.chat.loading import Loading
from medchat.chat.model_control import ModelControl
from medchat.chat.saved_sessions import SavedSessions
from medchat.chat.session import ChatSession
from medchat.chat.text_checks import MAX_QUESTION_BYTES


def afresh(session: ChatSession) -> ChatSession:
    """Return a new conversation with the same model and settings, not saved."""
    return ChatSession(
        model=session.model,
        template=session.template,
        config=session.config,
        conversation=Conversation(system=session.conversation.system),
        advisers=session.advisers,
        reviewers=session.reviewers,
        remember_history=session.remember_history,
        guard_loops=session.guard_loops,
        gate=session.gate,
        max_question_bytes=session.max_question_bytes,
    )


def _nothing_to_say(session: ChatSession) -> Sequence[str]:
    return ()


def _unnamed(session: ChatSession) -> str:
    return ""


def _no_commands() -> Sequence[SlashCommand]:
    return ()


def _forget(text: str) -> None:
    """Save no input history."""


def _nothing_early(question: str) -> Sequence[Notice]:
    return ()


@dataclass(frozen=True, slots=True)
class Startup:
    """One chat, ready to begin.

    `open_session`, `slash_commands`, `new_session`, `ready_lines` and `session_label` are called in one
    background thread, which also answers: a model and a session's recorder are never used by two threads.
    `remember_input` is called in the main thread. All texts may hold untrusted words.
    """

    #: Loads the model. An exception ends the chat and is passed to the caller of `run_repl`.
    open_session: Callable[[], ChatSession]
    #: The model's name for the status line: "chatglm · tiny".
    model_label: str = ""
    #: Printed before the first prompt: banner, disclaimer if it is due, start line.
    opening: Sequence[str] = ()
    #: "rich" or "plain". Plain wherever the terminal has no colour.
    style: str = "rich"
    #: The inputs of earlier chats, newest first.
    past_inputs: Sequence[str] = ()
    remember_input: Callable[[str], None] = _forget
    #: `/new`: makes the next conversation, with its own recorder, from the present session.
    new_session: Callable[[ChatSession], ChatSession] = afresh
    #: The saved session's name or id, for the status line; "" if nothing is saved.
    session_label: Callable[[ChatSession], str] = _unnamed
    #: The saved sessions, for the session commands; None if there are none.
    sessions: SavedSessions | None = None
    #: Shown once the model is loaded: warnings, which session is continued.
    ready_lines: Callable[[ChatSession], Sequence[str]] = _nothing_to_say
    #: Slash commands of plugins. Their failures are caught; they cannot replace a built-in name.
    slash_commands: Callable[[], Sequence[SlashCommand]] = _no_commands
    #: The notices about a question while the model is still loading. Called in the main thread.
    early_notices: Callable[[str], Sequence[Notice]] = _nothing_early
    #: A longer question is refused before waiting for the model.
    max_question_bytes: int = MAX_QUESTION_BYTES
    #: The progress of loading by `open_session`, and how to stop it.
    loading: Loading = field(default_factory=Loading)
    #: The control of model and settings; None if neither can be changed.
    control: ModelControl | None = None
    #: Figures below each answer; a bell after an answer that took this many seconds; colours, one of THEMES.
    footer: bool = True
    bell: bool = False
    bell_after: float = 10.0
    theme: str = "default"
    #: Show the traceback of an unexpected failure.
    debug: bool = False
