"""The keyboard between two prompts: nothing typed is echoed into an answer, and nothing is lost.

Also the keys that act on a complete character at a prompt, which may be several code points (👍🏽, 👨‍👩‍👧).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType, TracebackType
from typing import TextIO

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import is_searching
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from wcwidth import iter_graphemes

_INPUT_FLAGS, _LOCAL_FLAGS, _CONTROL_CHARACTERS = 0, 3, 6
#: How long to wait for the rest of a key sequence that begins with Esc.
_ESCAPE_SECONDS = 0.15
#: The largest number of code points examined for one character.
_LONGEST_CHARACTER = 64
_PASTE_ON, _PASTE_OFF, _SHOW_CURSOR = "\x1b[?2004h", "\x1b[?2004l", "\x1b[?25h"


class TerminalKeys(Vt100Input):
    """The keys of a terminal, whose mode can stay as it is while lines are printed above the prompt.

    prompt_toolkit prints in the kernel's cooked mode, where an Enter that is typed meanwhile becomes Ctrl-J: a new
    line in the draft, and nothing is sent.
    """

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self._printing = 0

    def keep_mode(self, printed: asyncio.Future[None]) -> None:
        """Let `cooked_mode` change nothing until `printed` is done."""
        self._printing += 1
        printed.add_done_callback(self._leave)

    def _leave(self, printed: asyncio.Future[None]) -> None:
        self._printing -= 1

    def cooked_mode(self) -> AbstractContextManager[None]:
        """Enter cooked mode, which an editor needs, unless lines are printed."""
        return self.raw_mode() if self._printing else super().cooked_mode()


class Keyboard:
    """A context manager that turns off the terminal's echo, and restores its mode.

    The mode lasts for the whole chat, prompts included (they change it and return to it), so that between an
    answer and a prompt no key is echoed and no line is sent by the kernel. Ctrl-C and Ctrl-Z stay signals.
    """

    def __init__(self, keys: Input) -> None:
        self._keys = keys
        self._descriptor = keys.fileno()
        self._before = termios.tcgetattr(self._descriptor)
        self._read_at = 0.0
        #: Called in the main thread, at any point, after the program was suspended and resumed.
        self.on_resume: Callable[[], None] = lambda: None

    def __enter__(self) -> Keyboard:
        self._quieten()
        # Earlier input was read in the kernel's cooked mode: an Enter in it is Ctrl-J, a new line in the
        # draft.
        early = self._keys.read_keys()
        store_typeahead(
            self._keys,
            [KeyPress(Keys.ControlM, "\r") if key.key is Keys.ControlJ else key for key in early],
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Restore the terminal's mode. Never raises: the terminal may be gone."""
        with suppress(OSError, ValueError):
            write_to_terminal(_PASTE_OFF + _SHOW_CURSOR)
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)

    @contextmanager
    def away_from_prompt(self) -> Iterator[None]:
        """Within this block `collect` may be called; what was typed goes into the next prompt afterwards.

        Bracketed paste stays on, so that a block pasted ahead does not send itself either.
        """
        self._write(_PASTE_ON)
        before = signal.signal(signal.SIGTSTP, self._suspend)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, before)
            self.collect()

    def collect(self) -> bool:
        """Read what was typed so far (the kernel buffers 4 KiB, a paste may be longer); return whether to stop.

        Esc means stop, and so does a Ctrl-C so soon after Enter that the prompt read both and it caused no
        signal. Many keys begin with the byte of Esc: it counts as Esc once nothing has followed it for a
        moment.
        """
        ahead = get_typeahead(self._keys)
        store_typeahead(self._keys, [key for key in ahead if key.key is not Keys.ControlC])
        if any(key.key is Keys.ControlC for key in ahead):
            return True
        while typed := self._keys.read_keys():
            self._read_at = time.monotonic()
            keys = [key for key in typed if key.key is not Keys.CPRResponse]
            store_typeahead(self._keys, keys)
        if time.monotonic() - self._read_at < _ESCAPE_SECONDS:
            return False
        left = self._keys.flush_keys()
        store_typeahead(self._keys, [key for key in left if key.key is not Keys.Escape])
        return any(key.key is Keys.Escape for key in left)

    def typed(self) -> str:
        """Return the text that was typed ahead, and keep it."""
        keys = get_typeahead(self._keys)
        store_typeahead(self._keys, keys)
        return _as_text(keys)

    def take_typed(self) -> str:
        """Return the text that was typed ahead, and clear it."""
        return _as_text(get_typeahead(self._keys)).strip()

    def _quieten(self) -> None:
        flags = termios.tcgetattr(self._descriptor)
        flags[_INPUT_FLAGS] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
        flags[_LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
        # Without NOFLSH the kernel discards typed keys at Ctrl-C.
        flags[_LOCAL_FLAGS] |= termios.ISIG | termios.NOFLSH
        flags[_CONTROL_CHARACTERS][termios.VMIN] = 1
        flags[_CONTROL_CHARACTERS][termios.VTIME] = 0
        termios.tcsetattr(self._descriptor, termios.TCSANOW, flags)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z during an answer: give the terminal to the shell, and set its mode again afterwards."""
        self.restore()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self._quieten()
        self._write(_PASTE_ON)
        self.on_resume()

    def _write(self, text: str) -> None:
        with suppress(OSError):
            write_to_terminal(text)


def _as_text(keys: Sequence[KeyPress]) -> str:
    text = ""
    for key in keys:
        if key.key is Keys.BracketedPaste:
            text += key.data.replace("\r\n", "\n").replace("\r", "\n")
        elif key.key in (Keys.ControlM, Keys.ControlJ):
            text += "\n"
        elif key.key is Keys.ControlH:
            text = text[: len(text) - last_length(text)]
        elif not isinstance(key.key, Keys):
            text += key.key
    return text


def write_to_terminal(text: str) -> None:
    """Write to stdout's terminal, bypassing the buffer, which may be in use: Ctrl-Z can interrupt a write.

    Raises OSError if the terminal is gone, ValueError if stdout is closed.
    """
    os.write(sys.__stdout__.fileno(), text.encode())  # type: ignore[union-attr]


def last_length(text: str) -> int:
    """Return how many code points the last character of `text` has; 0 if there is none."""
    *_, last = ("", *iter_graphemes(text[-_LONGEST_CHARACTER:]))
    return len(last)


def first_length(text: str) -> int:
    """Return how many code points the first character of `text` has; 0 if there is none."""
    return len(next(iter_graphemes(text[:_LONGEST_CHARACTER]), ""))


def bind_keys(keys: KeyBindings) -> None:
    """Let Backspace, Delete, Left and Right act on whole characters."""
    steps: dict[str, Callable[[Buffer], object]] = {
        "backspace": lambda at: at.delete_before_cursor(last_length(at.document.text_before_cursor)),
        "delete": lambda at: at.delete(first_length(at.document.text_after_cursor)),
        "left": lambda at: at.cursor_left(last_length(at.document.current_line_before_cursor)),
        "right": lambda at: at.cursor_right(first_length(at.document.current_line_after_cursor)),
    }
    for key, step in steps.items():
        keys.add(key, filter=~is_searching)(_repeated(step))


def _repeated(step: Callable[[Buffer], object]) -> Callable[[KeyPressEvent], None]:
    """Return the handler of a key that takes `step` as often as its numeric argument says."""

    def handle(event: KeyPressEvent) -> None:
        for _ in range(event.arg):
            step(event.current_buffer)

    return handle
