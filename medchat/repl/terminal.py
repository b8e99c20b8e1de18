"""The chat on a terminal: prompt, answer, prompt, until the user leaves or a signal ends it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TextIO

from prompt_toolkit.input import create_input
from prompt_toolkit.output import create_output
from rich.cells import cell_len

from medchat.cli.cjk_wrap import WIDEST, wrapped
from medchat.errors import MedchatError
from medchat.language import say
from medchat.repl import messages
from medchat.repl.chat import Chat
from medchat.repl.commands import COMMANDS
from medchat.repl.completion import SlashCompleter
from medchat.repl.interrupts import Interrupted, Interrupts
from medchat.repl.keyboard import Keyboard, TerminalKeys
from medchat.repl.medical_commands import INSIST
from medchat.repl.picker import Picker
from medchat.repl.plain_screen import PlainScreen
from medchat.repl.prompt import Ended, LinePrompt
from medchat.repl.rows import excerpt
from medchat.repl.saved_commands import session_offer
from medchat.repl.screen import PROMPT, Screen, untrusted
from medchat.repl.session_thread import SessionThread
from medchat.repl.startup import Startup
from medchat.repl.stderr_capture import StderrCapture
from medchat.store import SessionRecord


def chat_on_terminal(startup: Startup) -> int:
    """Chat on the terminal of stdin and stdout, and return the exit code: 0, 143 (SIGTERM) or 129 (SIGHUP).

    Raises what loading the model raised, with the draft printed and the terminal restored.
    """
    terminal = sys.stdout
    bare = _is_bare()
    width = min(shutil.get_terminal_size().columns, WIDEST)
    for text in startup.opening:
        terminal.write(wrapped(untrusted(text), width) + "\n")
    terminal.flush()
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        chat = Chat(
            startup,
            SessionThread(startup, lambda: _screen(startup, terminal), interrupts),
            COMMANDS,
            (INSIST,),
        )
        code = _run_bare(chat, interrupts) if bare else _Terminal(chat, terminal, interrupts, stack).run()
    if not chat.exchange.at_rest(0.5):
        # A model that is still loading, or would not stop: unwinding a thread inside torch's C++ code at
        # the interpreter's exit would abort the process.
        terminal.flush()
        os._exit(code)
    return code


def pick_session(records: Sequence[SessionRecord]) -> SessionRecord | None:
    """Let the user pick one of `records` on the terminal of stdin and stdout; return None for none."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = [session_offer(record, width) for record in records]
    chosen = Picker(say("会话", "session"), lines, create_input(sys.stdin), create_output(sys.stdout)).run()
    return None if chosen is None else records[chosen]


def may_redraw(style: str = "rich") -> bool:
    """Whether this terminal can redraw lines, and no plain output was requested."""
    return not (_is_bare() or style == "plain" or os.environ.get("NO_COLOR"))


def _is_bare() -> bool:
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown")


def _screen(startup: Startup, terminal: TextIO) -> Screen:
    if not may_redraw(startup.style):
        return PlainScreen(terminal, terminal)
    from medchat.repl.rich_screen import RichScreen

    return RichScreen(terminal, theme=startup.theme)


class _Terminal:
    """A chat with an editing prompt. The model loads in the background during the first one."""

    def __init__(self, chat: Chat, terminal: TextIO, interrupts: Interrupts, stack: ExitStack) -> None:
        keys, output = TerminalKeys(sys.stdin), create_output(terminal)
        self._chat = chat
        if may_redraw(chat.startup.style):
            chat.pick = lambda title, lines: Picker(title, lines, keys, output).run()
        self._exchange = chat.exchange
        self._interrupts = interrupts
        self._keyboard = stack.enter_context(Keyboard(keys))
        self._asides = stack.enter_context(StderrCapture())
        self._still = bool(os.environ.get("NO_COLOR"))
        startup = chat.startup
        self._prompt = LinePrompt(
            keys,
            output,
            startup.past_inputs,
            self._remember,
            SlashCompleter(chat),
            self._status,
            chat.leave_edit,
        )
        interrupts.on_end = lambda: self._prompt.post(self._prompt.end)
        self._exchange.meanwhile = self._meanwhile
        self._keyboard.on_resume = lambda: self._exchange.screen.resumed()
        self._asides.on_line = lambda: self._prompt.post(self._print_above)

    def run(self) -> int:
        """Chat until the end and return the exit code."""
        try:
            return self._run()
        except OSError:
            if self._interrupts.exit_code is None:
                raise
            # The terminal is gone (SIGHUP): nothing can be written any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
            return self._interrupts.exit_code
        finally:
            self._keep_draft(self._keyboard.take_typed())

    def _run(self) -> int:
        draft = ""
        while self._interrupts.exit_code is None and not self._chat.leaving:
            self._show_asides()
            try:
                line = self._prompt.read(
                    draft, self._begin, ticking=not self._still and self._exchange.loading_seconds is not None
                )
            except EOFError:
                break
            except Ended:
                self._keep_draft(self._prompt.text)
                break
            with self._keyboard.away_from_prompt():
                draft = self._answer(line)
        if draft:
            self._remember(draft)
        if (error := self._exchange.load_error) is not None:
            raise error
        return self._interrupts.exit_code or 0

    def _answer(self, line: str) -> str:
        try:
            draft = self._chat.handle_typed(line)
        except Exception as error:
            if error is self._exchange.load_error:
                self._keep_draft(line)
            raise
        self._show_asides()
        if not self._chat.leaving:
            self._chat.screen.show("")
        return draft

    def _remember(self, text: str) -> None:
        with suppress(MedchatError, OSError):  # saving a turn reports a full disk
            self._chat.startup.remember_input(text)

    def _keep_draft(self, text: str) -> None:
        if text.strip():
            self._remember(text)
            with suppress(OSError):  # the terminal is gone
                self._chat.screen.show(say("未发送的内容：", "Not sent: ") + untrusted(text))

    # ------------------------------------------------------------ while the prompt is shown

    def _begin(self) -> None:
        self._exchange.begin().when_finished(lambda: self._prompt.post(self._loaded))
        if self._interrupts.exit_code is not None:
            self._prompt.end()

    def _loaded(self) -> None:
        if self._exchange.load_error is not None:
            self._prompt.end()
        elif self._exchange.ready_lines:
            self._prompt.print_above(self._exchange.greet)
        self._prompt.redraw()

    def _status(self) -> str:
        if self._chat.edit is not None:
            return self._chat.edit.label
        seconds = self._exchange.loading_seconds
        if seconds is not None:
            bar = messages.loading_bar(self._chat.startup.loading)
            counted = "" if self._still else " ".join(("", *filter(None, (bar, f"{seconds:.0f}s"))))
            return say(f"模型加载中…{counted}", f"loading the model…{counted}")
        if self._exchange.held_back:
            return say("尚未加载模型 · 提问时加载", "no model is loaded · the next question loads it")
        between, way_to_help = " · ", say("/帮助", "/help")
        attachment = self._chat.attachment
        with_file = say(f"附件 {attachment.name}", f"with {attachment.name}") if attachment else ""
        parts = (with_file, self._chat.model_label, self._exchange.session_label)
        named = between.join(part for part in parts if part)
        room = self._chat.screen.width - cell_len(between + way_to_help)
        return between.join(part for part in (excerpt(named, room), way_to_help) if part)

    # ------------------------------------------------------------ without a prompt

    def _meanwhile(self) -> None:
        if self._keyboard.collect():
            self._interrupts.stop()
        self._chat.screen.show_typed(self._keyboard.typed())
        self._show_asides()

    def _print_above(self) -> None:
        self._prompt.print_above(self._show_asides)

    def _show_asides(self) -> None:
        for line in self._asides.take():
            self._chat.screen.tell(line)


def _run_bare(chat: Chat, interrupts: Interrupts) -> int:
    """Chat on a terminal that can only print (TERM=dumb): its own line editing, no status, no colour."""
    chat.exchange.begin()
    while interrupts.exit_code is None and not chat.leaving:
        sys.stdout.write(f"{PROMPT} ")
        sys.stdout.flush()
        try:
            with interrupts.raising():
                line = sys.stdin.readline()
        except Interrupted:
            chat.screen.show("")
            continue
        if not line:
            break
        if line.strip() and (unsent := chat.handle_typed(line.rstrip("\n"))):
            chat.screen.show(unsent)
    return interrupts.exit_code or 0
