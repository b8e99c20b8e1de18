"""Signals as requests: Ctrl-C stops the current operation, SIGTERM and SIGHUP ask the chat to end.

A handler raises only where the main thread is blocked in a read: an exception in the middle of drawing
would leave half a frame and a broken terminal.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from medchat.cli.stuck import SECOND_WISH
from medchat.errors import Interruption

_EXIT_CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129}


class Interrupted(Interruption):
    """A signal came while the main thread was blocked in a read (see `Interrupts.raising`)."""


class Interrupts:
    """A context manager that installs handlers for SIGINT, SIGTERM and SIGHUP. Main thread only.

    `exit_code` is set by the first SIGTERM or SIGHUP; `on_end` is then called, from the handler. Ctrl-C ends
    the program too if `end_on_ctrl_c`: there is no prompt to return to.
    """

    def __init__(self, *, end_on_ctrl_c: bool = False) -> None:
        self.exit_code: int | None = None
        self._codes = {**_EXIT_CODES, signal.SIGINT: 130} if end_on_ctrl_c else _EXIT_CODES
        self._raising = False
        self.on_end: Callable[[], None] = lambda: None
        self._stoppable: threading.Event | None = None
        self._stopped_at = 0.0
        #: Whether a second signal, or Esc, came long enough after the first that stopped the current
        #: operation.
        self.insists = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, *_EXIT_CODES):
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored, as under nohup
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def stopping(self, event: threading.Event) -> Iterator[threading.Event]:
        """Within this block each of the signals sets `event`."""
        outer, self._stoppable = self._stoppable, event
        self._stopped_at, self.insists = 0.0, False
        if self.exit_code is not None:
            event.set()
        try:
            yield event
        finally:
            self._stoppable = outer

    def stop(self) -> None:
        """Stop the current operation, as Ctrl-C does."""
        if self._stoppable is not None:
            now = time.monotonic()
            self._stopped_at = self._stopped_at or now
            self.insists = now - self._stopped_at >= SECOND_WISH
            self._stoppable.set()

    @property
    def waiting_since(self) -> float:
        """Seconds since the current operation was asked to stop; 0 if it was not."""
        return time.monotonic() - self._stopped_at if self._stopped_at else 0.0

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Within this block each of the signals raises `Interrupted`: for a read that nothing else can end."""
        self._raising = True
        try:
            if self.exit_code is not None:
                raise Interrupted
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        code = self._codes.get(signal.Signals(number))
        if self.exit_code is None:
            self.exit_code = code
        self.stop()
        if code is not None:
            self.on_end()
        if self._raising:
            self._raising = False
            raise Interrupted
