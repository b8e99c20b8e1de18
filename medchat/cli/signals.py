"""SIGTERM and SIGHUP end the program in order: finally-blocks run, the exit code tells which."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from medchat.errors import Interruption

_CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129}


class Stopped(Interruption):
    """A signal asked the program to end. A BaseException so that no `except Exception` swallows it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP raise `Stopped` in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(_CODES[signal.Signals(number)])

    before = {number: signal.signal(number, stop) for number in _CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def cancel_on_signals(
    cancel: threading.Event, *, insist: bool = False, told: Callable[[], None] = lambda: None
) -> Iterator[list[int]]:
    """While inside, Ctrl-C, SIGTERM and SIGHUP set `cancel` instead of raising.

    Yields a list that receives the exit code of the first signal, so that whoever answers can keep
    the partial answer, save it, and then end with that code. `told` is called for the first one. With
    `insist` the same signal a second time raises `Stopped`: launchers send one of their own after a
    Ctrl-C that the terminal has already sent to everybody, and that is no second wish.
    """
    codes: list[int] = []
    seen: set[int] = set()

    def note(number: int, frame: FrameType | None) -> None:
        code = {signal.SIGINT: 130, **_CODES}[signal.Signals(number)]
        if insist and number in seen:
            raise Stopped(code)
        seen.add(number)
        codes.append(code)
        cancel.set()
        if len(codes) == 1:
            told()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, *_CODES)}
    try:
        yield codes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
