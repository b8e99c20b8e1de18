"""Leaving native code that keeps the main thread: no signal handler of Python's runs before it returns.

The signal itself does arrive: C code notes it and writes its number into a pipe (`signal.set_wakeup_fd`), which a
thread here reads. Where the handler has not been called a moment later, the thread does what the handler would have
done. Native code that also holds the interpreter's lock stops this thread too: such a process ends by SIGQUIT or
SIGKILL alone.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from medchat.cli.leaving import FoundTerminal, leave, stuck_plugin
from medchat.cli.output import say_aside
from medchat.language import say

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

#: Seconds after which the same signal is a person's second thought and no echo of the first.
SECOND_WISH = 1.5
#: Seconds within which a main thread that runs Python calls its handler; one call of a library may take some of them.
PROMPT = 1.0
#: Seconds that SIGTERM and SIGHUP leave: nobody may be there to ask again.
PATIENCE = 10.0
#: Two clocks of two threads, and the thread that reads has to wait for the interpreter's lock.
_SLACK = 0.1

Handler = Callable[[int, FrameType | None], object]


class NotedHandler:
    """A handler of signals that tells when it was called last.

    `limit`: so many seconds after SIGTERM or SIGHUP the program is left, None for never. A handler that `raises`
    has done its part once it was called.
    """

    called_at = -math.inf

    def __init__(self, action: Handler, limit: float | None, *, raises: bool) -> None:
        self._action, self.limit, self.raises = action, limit, raises

    def __call__(self, number: int, frame: FrameType | None) -> None:
        NotedHandler.called_at = time.monotonic()
        self._action(number, frame)


@contextmanager
def leaving_stuck_code() -> Iterator[None]:
    """While inside, a main thread that does not come back to its handlers is left. Main thread only.

    The first signal is answered with a line that says how to leave. The same one again, `SECOND_WISH` seconds later
    or more, saves what there is (`when_left`), names the plugin, puts the terminal back and ends the program with the
    signal's code; so do SIGTERM and SIGHUP alone once the handler's limit is over. Signals whose handler is no
    `NotedHandler` are somebody else's.
    """
    global _watched
    watch = _Watch()
    before = signal.set_wakeup_fd(watch.written, warn_on_full_buffer=False)
    outer, _watched = _watched, watch.written
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        _watched = outer
        watch.stop()


#: The pipe that signals of this process are written into, -1 for none.
_watched = -1


def _exchange(old: int, new: int) -> None:
    """Have signals written into `new` where they are written into `old`, and not into somebody else's pipe."""
    if _watched >= 0:
        with suppress(ValueError):  # not the main thread
            found = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(new if found == old else found, warn_on_full_buffer=False)


def _forget() -> None:
    """A fork has the handlers and the pipe too, but its signals are not those of this process."""
    _exchange(_watched, -1)


def _remember() -> None:
    _exchange(-1, _watched)


# Also before: a signal may come to the child at its very beginning. Where another thread forks, only the child can.
os.register_at_fork(before=_forget, after_in_parent=_remember, after_in_child=_forget)


class _Watch(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="watch-signals", daemon=True)
        self._read, self.written = os.pipe()
        os.set_blocking(self.written, False)
        self._terminal = FoundTerminal()
        self._over = threading.Event()
        self._asked: dict[int, float] = {}
        self._waiting: tuple[float, int, NotedHandler] | None = None

    def stop(self) -> None:
        """End the thread. No signal is written any more."""
        self._over.set()
        os.close(self.written)
        self.join(PROMPT)

    def run(self) -> None:
        while not self._over.is_set():
            due = self._waiting[0] - time.monotonic() if self._waiting else None
            if not select.select([self._read], [], [], due and max(0.0, due))[0]:
                self._come_due()
            elif number := os.read(self._read, 1):
                self._take(number[0])
            else:
                break
        os.close(self._read)

    def _take(self, number: int) -> None:
        """Look whether the signal that has arrived is handled, and leave if it is a person's second wish."""
        handler, now = signal.getsignal(number), time.monotonic()
        if not isinstance(handler, NotedHandler):
            return
        again = now - self._asked.setdefault(number, now) >= SECOND_WISH
        noticed = self._noticed_since(now)
        if again and not noticed:
            self._leave(number)
        if not noticed:
            say_aside(_stuck())
        if number != signal.SIGINT and handler.limit is not None and not (noticed and handler.raises):
            self._waiting = self._waiting or (now + handler.limit, number, handler)

    def _noticed_since(self, moment: float) -> bool:
        """Whether a handler was called at that moment or later; waits `PROMPT` seconds for it."""
        while NotedHandler.called_at < moment - _SLACK and time.monotonic() < moment + PROMPT:
            if self._over.wait(0.02):
                return True
        return NotedHandler.called_at >= moment - _SLACK

    def _come_due(self) -> None:
        if self._waiting is None:
            return
        due, number, handler = self._waiting
        self._waiting = None
        asked = due - (handler.limit or 0.0) - _SLACK
        obeyed = handler.raises and NotedHandler.called_at >= asked
        if signal.getsignal(number) is handler and not obeyed:
            self._leave(number)

    def _leave(self, number: int) -> None:
        if not self._over.is_set():
            leave(EXIT_CODES[signal.Signals(number)], self._terminal)


def _stuck() -> str:
    plugin = stuck_plugin()
    who = plugin.what if plugin else say("程序还没有停下", "the program has not stopped")
    return say(
        f"{who}；再按一次 Ctrl-C，保存已有的内容并退出", f"{who}; Ctrl-C again saves what has come and leaves"
    )
