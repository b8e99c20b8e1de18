"""A question that is typed, piped in, or typed with its context piped in beside it."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medchat.chat.attachments import Attachment
from medchat.chat.text_checks import check_question
from medchat.cli.output import say_aside
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line

#: So long, from the start, the first word of a context is waited for; the model loads meanwhile.
FIRST_WORD_SECONDS = 1.0
#: So long the next piece of it is waited for.
NEXT_PIECE_SECONDS = 10.0
#: What is there is read before anything is loaded: so long a program at the other end has to write it.
_AT_ONCE_SECONDS = 0.1
_CHUNK = 1 << 16
#: A byte-order mark and a line end are not counted.
_MARK_AND_END = 5


@dataclass
class QuestionInput:
    """The question of a command line: the argument itself, all of stdin for `-`.

    Beside an argument, stdin is the question's context where it is a pipe or a file with something in it.
    `files` are under the question, before what is piped in. `max_bytes` is what all may take together.
    `wording` makes the question of the argument or what `-` read.
    """

    argument: str
    max_bytes: int
    files: Sequence[Attachment] = ()
    wording: Callable[[str], str] = str
    _started: float = field(default_factory=time.monotonic)
    _question: str = ""
    _descriptor: int | None = None

    def begin(self) -> None:
        """Read what is there already. Raises UsageError for a question or context that cannot be asked."""
        if self.argument == "-":
            self._question = self._with_files(self._worded(_piped_question(self.max_bytes)))
            return
        self._question = self._with_files(self._worded(self.argument))
        self._descriptor = _pipe_or_file()
        if self._comes_within(_AT_ONCE_SECONDS):
            self._take_context()

    def _worded(self, words: str) -> str:
        question = self.wording(words)
        check_question(question, self.max_bytes)
        return question

    def _with_files(self, question: str) -> str:
        for file in self.files:
            question = file.under(question, self.max_bytes)
            name, count = sanitize_line(file.name, 60), len(file.text)
            say_aside(say(f"（附件：{name}，{count} 字）", f"(attached: {name}, {count} characters)"))
        return question

    @property
    def so_far(self) -> str:
        """What is known of the question after `begin`."""
        return self._question

    def complete(self) -> str:
        """Return the question, its context under it. One that has not begun is waited for a moment.

        Raises UsageError for a context that cannot be asked.
        """
        if self._descriptor is not None:
            if self._comes_within(self._started + FIRST_WORD_SECONDS - time.monotonic()):
                self._take_context()
            else:
                say_aside(
                    say(
                        "（标准输入已打开但没有内容，不再等待；加上 </dev/null 可关闭标准输入）",
                        "(standard input is open but empty, and was not waited for; </dev/null closes it)",
                    )
                )
        return self._question

    def _comes_within(self, seconds: float) -> bool:
        if self._descriptor is None:
            return False
        return bool(select.select([self._descriptor], [], [], max(0.0, seconds))[0])

    def _take_context(self) -> None:
        context = _text_of(self._read(), self.max_bytes).strip("\r\n")
        self._descriptor = None
        if not context.strip():
            return
        question = f"{self._question}\n\n{context}"
        check_question(question, self.max_bytes)
        self._question = question
        say_aside(
            say(
                f"（从标准输入读了 {len(context)} 个字，作为问题的背景）",
                f"(read {len(context)} characters from standard input as the question's context)",
            )
        )

    def _read(self) -> bytes:
        content = b""
        while self._descriptor is not None and len(content) < self.max_bytes + _MARK_AND_END:
            if not self._comes_within(NEXT_PIECE_SECONDS):
                say_aside(
                    say(
                        f"（标准输入 {NEXT_PIECE_SECONDS:.0f} 秒没有新内容，只使用已读到的部分）",
                        f"(nothing came on standard input for {NEXT_PIECE_SECONDS:.0f} s: going on with what was read)",
                    )
                )
                break
            piece = os.read(self._descriptor, _CHUNK)
            if not piece:
                break
            content += piece
        return content


def _pipe_or_file() -> int | None:
    """Return the descriptor of stdin where it is a pipe or a file: a terminal or a device holds no context."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or no file of the system's
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) else None


def _piped_question(max_bytes: int) -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            say("没有从管道读到问题", "no question came through the pipe"),
            'printf "头痛怎么办？" | medchat ask -',
        )
    question = _text_of(sys.stdin.buffer.read(max_bytes + _MARK_AND_END), max_bytes)
    return question.removesuffix("\n").removesuffix("\r")


def _text_of(raw: bytes, max_bytes: int) -> str:
    """Decode what was piped in. Raises UsageError if it is no UTF-8; what is cut at the limit is too long anyway."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(raw) <= max_bytes or error.start < max_bytes - 4:
            raise UsageError(
                say(
                    f"输入不是 UTF-8（第 {error.start + 1} 个字节）",
                    f"the input is not UTF-8 (byte {error.start + 1})",
                ),
                say("先转换编码：iconv -f GB18030 -t UTF-8", "convert it first: iconv -f GB18030 -t UTF-8"),
            ) from None
        return raw.decode("utf-8", "ignore")
