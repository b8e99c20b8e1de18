"""SIGTERM and SIGHUP end the program in order: finally-blocks run, the exit code tells which.

The handlers run in the main thread, once what it does there comes back to Python; `medchat.cli.stuck` watches over
native code that does not.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from medchat.cli.stuck import EXIT_CODES, PATIENCE, SECOND_WISH, NotedHandler, leaving_stuck_code
from medchat.errors import Interruption

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Stopped(Interruption):
    """A signal asked the program to end. A BaseException so that no `except Exception` swallows it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class CtrlC(KeyboardInterrupt, Interruption):
    """Ctrl-C was pressed. A plugin that raises KeyboardInterrupt itself raises another."""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP raise `Stopped` in the main thread, Ctrl-C `CtrlC`.

    A main thread that native code keeps is left, see `medchat.cli.stuck`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(EXIT_CODES[signal.Signals(number)])

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise CtrlC

    handlers = {number: NotedHandler(stop, PATIENCE, raises=True) for number in _ENDING}
    handlers[signal.SIGINT] = NotedHandler(interrupt, None, raises=True)
    with leaving_stuck_code(), _handling(handlers):
        yield


@contextmanager
def _handling(handlers: Mapping[signal.Signals, NotedHandler]) -> Iterator[None]:
    """While inside, signals go to these handlers, but for those that were turned off: by nohup, or for a job
    in the background of a script."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def cancel_on_signals(
    cancel: threading.Event,
    *,
    insist: bool = False,
    on_first: Callable[[], None] | None = None,
    limit: float | None = None,
) -> Iterator[list[int]]:
    """While inside, Ctrl-C, SIGTERM and SIGHUP set `cancel` instead of raising.

    Yields a list that receives the exit code of the first signal, so that whoever answers can keep
    the partial answer, save it, and then end with that code. `on_first` is called for the first one, see
    `_announcing`. With `insist` the same signal again, `SECOND_WISH` seconds later or more, raises `Stopped`.
    A launcher such as torchrun passes a Ctrl-C on that the terminal has already sent to everybody: that is
    no second wish. `limit`: the program is left so many seconds after SIGTERM or SIGHUP, whatever it does then.
    """
    codes: list[int] = []
    seen: dict[int, float] = {}

    def note(number: int, frame: FrameType | None) -> None:
        code, now = EXIT_CODES[signal.Signals(number)], time.monotonic()
        if insist and now - seen.setdefault(number, now) >= SECOND_WISH:
            raise Stopped(code)
        codes.append(code)
        cancel.set()
        if len(codes) == 1:
            announce()

    handler = NotedHandler(note, limit, raises=False)
    with _announcing(on_first) as announce, _handling(dict.fromkeys(EXIT_CODES, handler)):
        yield codes


@contextmanager
def _announcing(on_first: Callable[[], None] | None) -> Iterator[Callable[[], None]]:
    """Yield a function that has `on_first` called, in a thread of its own and before the block is left.

    A signal may come in the middle of a write to the very stream that `on_first` writes to: its handler must
    not write. It may put something into a SimpleQueue, whatever the main thread was doing.
    """
    if on_first is None:
        yield lambda: None
        return
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def wait() -> None:
        if wanted.get():
            on_first()

    thread = threading.Thread(target=wait, name="announce-signal", daemon=True)
    thread.start()
    try:
        yield lambda: wanted.put(True)
    finally:
        wanted.put(False)
        thread.join()
