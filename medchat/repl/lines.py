"""Chat without a terminal: one question an input line, answers alone on stdout, all else on stderr."""

from __future__ import annotations

import sys
from typing import TextIO

from medchat.cli.output import answers
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.chat import Chat
from medchat.repl.exchange import Exchange
from medchat.repl.interrupts import Interrupted, Interrupts
from medchat.repl.plain_screen import PlainScreen
from medchat.repl.screen import untrusted
from medchat.repl.startup import Startup


def run_lines(startup: Startup, stream: TextIO) -> int:
    """Answer each line of `stream` in turn and return the exit code.

    A line that fails is reported on stderr and the next one is answered; the code is that of the first
    failure. Ctrl-C, SIGTERM and SIGHUP keep the partial answer and end with 130, 143 and 129. Raises what
    loading the model raised, and BrokenPipeError where the reader of the answers has gone.
    """
    screen = PlainScreen(answers(), sys.stderr)
    with Interrupts(end_on_ctrl_c=True) as interrupts:
        chat = Chat(startup, Exchange(startup, lambda: screen, interrupts))
        for line in startup.opening:
            screen.show(untrusted(line))
        chat.exchange.begin()
        while interrupts.exit_code is None and not chat.leaving:
            try:
                with interrupts.raising():
                    question = _next_line(stream)
            except Interrupted:
                continue
            if question is None:
                break
            if question.strip():
                chat.handle(question)
        return interrupts.exit_code or chat.failed


def _next_line(stream: TextIO) -> str | None:
    try:
        line = stream.readline()
    except UnicodeDecodeError as error:
        raise UsageError(
            say(
                f"输入不是有效的 UTF-8：第 {error.start + 1} 字节",
                f"the input is not valid UTF-8: byte {error.start + 1}",
            ),
            say("请用 UTF-8 编码保存后再试", "save it as UTF-8 and try again"),
        ) from None
    return line.rstrip("\r\n") if line else None
