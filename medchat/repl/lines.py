"""Chat without a terminal: one question an input line, answers alone on stdout, all else on stderr."""

from __future__ import annotations

import codecs
import sys
from typing import IO

from medchat.cli.output import answer_stream
from medchat.repl.chat import Chat
from medchat.repl.commands import COMMANDS
from medchat.repl.interrupts import Interrupted, Interrupts
from medchat.repl.medical_commands import INSIST
from medchat.repl.plain_screen import PlainScreen
from medchat.repl.screen import untrusted
from medchat.repl.session_thread import SessionThread
from medchat.repl.startup import Startup

#: Bytes of a line beyond its question: a byte-order mark, a line end, and one that shows it is too long.
_MARK_AND_END = 3 + 2 + 1
#: The size of the chunks in which the rest of a line that is too long is read and discarded.
_PIECE = 1 << 16


def chat_on_lines(startup: Startup, stream: IO[bytes]) -> int:
    """Answer each line of `stream` in turn and return the exit code.

    A line that fails is reported on stderr and the next one is answered; the code is that of the first
    failure. Ctrl-C, SIGTERM and SIGHUP keep the partial answer and end with 130, 143 and 129. Raises what
    loading the model raised, and BrokenPipeError if the reader of the answers has gone.
    """
    screen = PlainScreen(answer_stream(), sys.stderr)
    lines = QuestionLines(stream, startup.max_question_bytes)
    with Interrupts(end_on_ctrl_c=True) as interrupts:
        chat = Chat(
            startup,
            SessionThread(startup, lambda: screen, interrupts),
            COMMANDS,
            (INSIST,),
        )
        for line in startup.opening:
            screen.show(untrusted(line))
        chat.exchange.begin()
        while interrupts.exit_code is None and not chat.leaving:
            try:
                with interrupts.raising():
                    question = lines.next()
            except Interrupted:
                continue
            if question is None:
                break
            if question.strip():
                chat.handle(question)
        return interrupts.exit_code or chat.failed


class QuestionLines:
    """Reads questions, one per line, in UTF-8 independent of the locale, with bounded memory.

    Bytes that are not UTF-8 become lone surrogates, which no question may hold: only that question is
    refused, like one that is too long.
    """

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        """`max_bytes` is the longest question; a longer line is cut off so that it is still too long."""
        self._stream = stream
        self._limit = max_bytes + _MARK_AND_END
        self._first = True

    def next(self) -> str | None:
        """Return the next line without its end, or None at the end of the input."""
        raw = self._stream.readline(self._limit)
        if not raw:
            return None
        if len(raw) == self._limit and not raw.endswith(b"\n"):
            self._skip_the_rest()
        if self._first:
            self._first, raw = False, raw.removeprefix(codecs.BOM_UTF8)
        return raw.decode("utf-8", "surrogateescape").rstrip("\r\n")

    def _skip_the_rest(self) -> None:
        while (piece := self._stream.readline(_PIECE)) and not piece.endswith(b"\n"):
            pass
