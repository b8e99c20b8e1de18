"""Commands of plugins that are typed at the prompt: each in a thread of its own, which the user may leave.

A plugin may sleep, catch every exception or call native code that does not return. None of that reaches the main
thread, which keeps watching the keyboard and the signals.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from medchat.repl.interrupts import Interrupts
from medchat.repl.screen import Screen
from medchat.repl.worker import Job

Result = TypeVar("Result")

#: Seconds between two looks at the signals.
_POLL = 0.04
#: How long a call runs before the screen says what is waited for.
_SHORT = 0.3


class PluginCalls:
    """Runs calls of plugins for the main thread, one at a time."""

    def __init__(
        self, screen: Callable[[], Screen], interrupts: Interrupts, meanwhile: Callable[[], None]
    ) -> None:
        """`screen` returns what the wait is shown on; `meanwhile` is called while it is shown."""
        self._screen, self._interrupts, self._meanwhile = screen, interrupts, meanwhile
        self._left: list[Job[Any]] = []

    def run(self, what: str, work: Callable[[], Result]) -> Result | None:
        """Run `work` and return its result, None if it was left. Raises what it raises.

        Ctrl-C, SIGTERM and SIGHUP leave it at once; its thread runs until the program ends.
        """
        context, began = contextvars.copy_context(), time.monotonic()
        job: Job[Result] = Job(lambda _: context.run(work))
        threading.Thread(target=job.run, name="medchat-plugin", daemon=True).start()
        with self._interrupts.stopping(job.cancel):
            while not job.finished and not job.cancel.is_set():
                job.take(_POLL)
                if (seconds := time.monotonic() - began) > _SHORT:
                    self._screen().wait_for(what, seconds)
                    self._screen().tick()
                    self._meanwhile()
        self._screen().wait_for("")
        self._screen().end_answer()
        if not job.finished:
            self._left.append(job)
            return None
        return job.result()

    @property
    def at_rest(self) -> bool:
        """Whether every call that was left has ended."""
        return all(job.finished for job in self._left)
