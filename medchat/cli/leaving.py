"""Ending the program in the middle of what it does: what there is is saved, the terminal is as it was found."""

from __future__ import annotations

import os
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from medchat.cli.output import answer_stream, failure_lines, say_aside
from medchat.errors import MedchatError

#: Seconds that saving may take: whoever holds a lock now may never let go of it.
_SAVING = 5.0
_STDIN, _STDERR = 0, 2
_SHOW_CURSOR = b"\x1b[?25h"
#: What is done before the program is left, the last one first.
_when_left: list[Callable[[], None]] = []


@contextmanager
def when_left(save: Callable[[], None]) -> Iterator[None]:
    """While inside, `save` is called if the program is left, in another thread than this one."""
    _when_left.append(save)
    try:
        yield
    finally:
        _when_left.remove(save)


def end_now(code: int) -> None:
    """End this process with `code`, whatever its threads do. What was written is flushed."""
    for stream in (answer_stream(), sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, none, or nobody reads it any more
            stream.flush()
    os._exit(code)


class FoundTerminal:
    """The settings of the terminal as they are now; without one there is nothing to put back."""

    def __init__(self) -> None:
        self._settings = None
        with suppress(termios.error, OSError):
            self._settings = termios.tcgetattr(_STDIN)

    def put_back(self) -> None:
        """Give the terminal these settings, and show its cursor; not from the background, where it is another's."""
        with suppress(termios.error, OSError):
            if self._settings is not None and os.tcgetpgrp(_STDIN) == os.getpgrp():
                termios.tcsetattr(_STDIN, termios.TCSANOW, self._settings)
                if os.isatty(_STDERR):
                    os.write(_STDERR, _SHOW_CURSOR)


def leave(code: int, terminal: FoundTerminal) -> None:
    """Save what there is, say whose code does not come back, and end with `code`. Not from the main thread."""

    def save_and_end() -> None:
        _save()
        terminal.put_back()
        end_now(code)

    saving = threading.Thread(target=save_and_end, name="save-and-end", daemon=True)
    saving.start()
    saving.join(_SAVING)
    terminal.put_back()
    os._exit(code)


def _save() -> None:
    for save in reversed(_when_left):
        with suppress(Exception):  # what else there is to save must not be lost with it
            save()
    stuck = stuck_plugin()
    for line in failure_lines(stuck) if stuck is not None else ():
        say_aside(line)


def stuck_plugin() -> MedchatError | None:
    """Return the error that names the plugin that the main thread is in, None if it is in none."""
    plugins = sys.modules.get("medchat.registry.plugin")  # not imported: none was asked for anything
    error: MedchatError | None = plugins.error_of_stuck_call() if plugins is not None else None
    return error
