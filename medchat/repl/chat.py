"""One chat: handles each input line, shows the answer or a command's result, and may return a draft."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from medchat.api import SlashCommand
from medchat.chat.attachments import Attachment
from medchat.chat.demo_mode import UnknownToDemo
from medchat.chat.events import Event
from medchat.chat.loading import Loading
from medchat.chat.model_control import ModelControl
from medchat.chat.session import ChatSession
from medchat.chat.text_checks import check_question
from medchat.errors import MedchatError, UsageError
from medchat.repl import messages
from medchat.repl.answering import AnswerView
from medchat.repl.screen import Screen, Tone, untrusted, untrusted_line
from medchat.repl.session_thread import SessionThread
from medchat.repl.slash import ReplCommand, Typed, find, parse
from medchat.repl.startup import Startup
from medchat.sanitize import sanitize

#: Complete lines that are commands in other chat programs. The second set clears the history there and the
#: screen in a shell, so the user is asked.
_LEAVING = ("exit", "quit", "退出")
_CLEARING = ("clear", "清空", "清屏")


@dataclass(frozen=True, slots=True)
class Edit:
    """What is being edited: its name for the status line, and a function that takes the text and returns success."""

    label: str
    finish: Callable[[str], bool]


class Chat:
    """The common part of the terminal chat and the line-by-line chat. Main thread only.

    `leaving` is set by `/exit`; `failed` holds the exit code of the first line that could not be answered.
    `edit` is set by `/edit`: the next line that is no command is the new text. `draft` is what a command puts
    into the next prompt. `pick` lets the user choose one of several lines and returns its index, if the
    terminal supports it.
    """

    def __init__(
        self,
        startup: Startup,
        exchange: SessionThread,
        commands: Sequence[ReplCommand[Chat]],
        insisting: Sequence[ReplCommand[Chat]] = (),
    ) -> None:
        """`insisting` are the commands that exist while the model answers only what it has learned."""
        self._commands, self._insisting = commands, insisting
        self.startup = startup
        self.exchange = exchange
        self.leaving = False
        self.failed = 0
        self.edit: Edit | None = None
        self.draft = ""
        self.attachment: Attachment | None = None
        self.pick: Callable[[str, Sequence[str]], int | None] | None = None
        self._confirming = self._to_confirm = ""
        self._asked_back = ""

    @property
    def screen(self) -> Screen:
        """The screen that everything is shown on."""
        return self.exchange.screen

    @property
    def commands(self) -> Sequence[ReplCommand[Chat]]:
        """All available commands: the built-in ones, then those of plugins whose names are not taken."""
        insists = self.control is not None and self.control.insists
        ours = (*self._commands, *(self._insisting if insists else ()))
        taken = {name for command in ours for name in (command.name, command.zh_name)}
        added = []
        for command in self.exchange.plugin_commands:
            names = {command.name, command.zh_name}
            if not names & taken:
                taken |= names
                added.append(_of_plugin(command))
        return (*ours, *added)

    @property
    def control(self) -> ModelControl | None:
        """The control of model and settings; None if they cannot be changed."""
        return self.startup.control

    @property
    def model_label(self) -> str:
        """The name of the model, for the status line."""
        return self.control.label if self.control is not None else self.startup.model_label

    def handle_typed(self, line: str) -> str:
        """`handle` for a person at a terminal, who may type other programs' exit commands without a slash."""
        word, before = line.strip().lower(), self._asked_back
        self._asked_back = ""
        if self.edit is not None:
            return self.handle(line)
        if word in _LEAVING:
            self.leaving = True
            return ""
        if word in _CLEARING and word != before:
            self._asked_back = word
            self.screen.tell(messages.what_clear_means(word))
            return ""
        return self.handle(line)

    def handle(self, line: str) -> str:
        """Answer a line or run its command. Returns the draft for the next prompt (usually "").

        A question is returned if it has no answer: it was stopped, or refused (too long). Raises what loading
        the model raised: without a model there is no chat.
        """
        typed = parse(line)
        self._confirming, self._to_confirm = self._to_confirm, ""
        try:
            if isinstance(typed, Typed):
                self._run(typed)
                draft, self.draft = self.draft, ""
                return draft
            if self.edit is not None:
                return self._finish(self.edit, typed, line)
            question = self._with_attachment(typed)
            self._say_early(question)
            if not self.exchange.ready():
                return line
        except Exception as error:
            if error is self.exchange.load_error:
                raise
            self.report(error)
            return "" if isinstance(typed, Typed) else line
        view = self.show_answer(lambda session, cancel: session.ask(question, cancel))
        if view.stopped_early:
            self.screen.tell(messages.nothing_said())
        # A question unknown to the demo is not edited but replaced by one of those that it offers.
        edited = isinstance(view.error, UsageError) and not isinstance(view.error, UnknownToDemo)
        refused = edited and not view.text_came
        if view.stopped_early or refused:
            return line
        self.attachment = None
        return ""

    def _with_attachment(self, typed: str) -> str:
        """Return the question to send. Raises UsageError for one that cannot be sent."""
        most = self.startup.max_question_bytes
        check_question(typed, most)
        return typed if self.attachment is None else self.attachment.under(typed, most)

    def confirmed(self, what: str) -> bool:
        """Whether the previous line requested the same; else the next one may confirm it."""
        if self._confirming == what:
            return True
        self._to_confirm = what
        return False

    def leave_edit(self) -> None:
        """Treat the next line as a question again."""
        self.edit = None

    def _finish(self, edit: Edit, text: str, line: str) -> str:
        self.leave_edit()
        if edit.finish(text):
            return ""
        self.edit = edit
        return line

    def _say_early(self, question: str) -> None:
        """Show urgent advice while the model is still loading, which may take minutes, or fail."""
        if self.exchange.loading_seconds is not None or self.exchange.load_error is not None:
            for notice in self.startup.early_notices(question):
                self.screen.tell(notice.text, Tone.URGENT)

    def show_answer(
        self,
        ask: Callable[[ChatSession, threading.Event], Iterator[Event]],
        screen: Screen | None = None,
        loading: Loading | None = None,
    ) -> AnswerView:
        """Show an answer on `screen` (default: the chat's own), and return its result.

        `loading` is the progress of the model that answers, if it has to be loaded first.
        """
        view = self.exchange.answer(ask, screen, loading)
        if view.error is not None:
            self._count(view.error)
        return view

    def _run(self, typed: Typed) -> None:
        try:
            command = find(typed.name, self.commands)
        except MedchatError:
            if self.exchange.loading_seconds is None or not self.exchange.ready():
                raise
            command = find(typed.name, self.commands)  # the plugins' commands are known now
        self.leave_edit()
        command.run(self, typed.words)

    def report(self, error: Exception) -> None:
        """Show what failed and what to do, and set the exit code of a chat without a terminal."""
        self._count(error)
        if self.startup.debug:
            self.screen.show(sanitize("".join(traceback.format_exception(error))))
        self.screen.tell(messages.failure(error), Tone.WARNING)

    def _count(self, error: BaseException) -> None:
        self.failed = self.failed or (error.exit_code if isinstance(error, MedchatError) else 1)


def _of_plugin(command: SlashCommand) -> ReplCommand[Chat]:
    name = untrusted_line(command.name)

    def run(chat: Chat, words: str) -> None:
        if not chat.exchange.ready():
            return
        conversation = chat.exchange.call(lambda session: session.conversation)
        shown = chat.exchange.plugins.run(f"/{name}", lambda: command.run(conversation, words))
        if shown is None:
            chat.screen.tell(messages.left_running(command.name, command.plugin), Tone.WARNING)
        elif shown:
            chat.screen.show(untrusted(shown))

    summary = command.summary
    return ReplCommand(
        command.name,
        command.zh_name,
        "",
        untrusted_line(summary.get("zh", summary.get("en", ""))),
        untrusted_line(summary.get("en", summary.get("zh", ""))),
        run,
    )
