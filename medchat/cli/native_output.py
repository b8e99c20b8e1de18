"""What native code writes to file descriptor 2 while a model loads or answers: llama.cpp alone prints some 80 lines."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from types import TracebackType

import click

from medchat.cli.output import say_aside
from medchat.errors import Interruption
from medchat.language import say
from medchat.sanitize import sanitize_line

#: How many last lines are kept, and so much of each is shown.
_LINES, _LENGTH = 40, 300
#: Bytes that are read at once; a longer line is treated as several.
_BLOCK = 1 << 14
_STDERR = 2


class HeldNativeOutput:
    """A context manager that keeps what is written past Python to stderr, and shows its end if the block fails.

    What Python writes to `sys.stderr` goes where it did. Under `--debug` nothing is kept back; nor where stderr is
    not the process's own, as under pytest.
    """

    def __init__(self) -> None:
        context = click.get_current_context(silent=True)
        self._debug = bool(((context.obj if context else None) or {}).get("debug"))
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._own = -1

    def __enter__(self) -> None:
        if self._debug or not _is_the_process_s_own():
            return
        self._before = sys.stderr
        self._before.flush()
        self._own = os.dup(_STDERR)
        stream = os.fdopen(os.dup(self._own), "w", encoding=self._before.encoding, errors="backslashreplace")
        stream.reconfigure(line_buffering=True)
        sys.stderr = stream
        kept, written = os.pipe()
        os.dup2(written, _STDERR)
        os.close(written)
        self._reader = threading.Thread(target=self._read, args=(kept,), name="native-stderr", daemon=True)
        self._reader.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own < 0:
            return
        os.dup2(self._own, _STDERR)  # nobody writes into the pipe any more: the reader comes to its end
        os.close(self._own)
        self._own = -1
        if sys.stderr is not self._before:
            sys.stderr.close()
            sys.stderr = self._before
        self._reader.join(1.0)
        if error is not None and not isinstance(error, (Interruption, KeyboardInterrupt)):
            self._show()

    def _read(self, kept: int) -> None:
        with os.fdopen(kept, "rb", buffering=0) as stream:
            left = b""
            while block := stream.read(_BLOCK):
                *lines, left = (left + block).split(b"\n")
                if len(left) > _BLOCK:
                    lines, left = [*lines, left], b""
                self._lines.extend(line.decode("utf-8", "replace") for line in lines if line.strip())
            if left.strip():
                self._lines.append(left.decode("utf-8", "replace"))

    def _show(self) -> None:
        if self._lines:
            say_aside(say("底层库最后输出的内容：", "what the libraries below printed last:"))
        for line in self._lines:
            say_aside("  " + sanitize_line(line, _LENGTH))


def _is_the_process_s_own() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.fileno() == _STDERR
    except (OSError, ValueError):
        return False
