"""One background thread that loads the model and answers, so that the main thread can draw and listen.

All work on a session happens in this thread, in the order in which it was requested.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A running job. Only the thread that started it takes events and the result."""

    def __init__(self, work: Callable[[Job[Result]], Result]) -> None:
        self.cancel = threading.Event()
        self._work = work
        self._changed = threading.Condition()
        self._events: deque[Any] = deque()
        self._ended = False
        self._when_finished: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._result: Result | None = None

    def emit(self, event: Any) -> None:
        """Queue `event` for the waiting thread. Called by the work."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def take(self, timeout: float) -> Any | None:
        """Return the next event, or None if there is none within `timeout` seconds or the work has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._ended, timeout)
            return self._events.popleft() if self._events else None

    @property
    def finished(self) -> bool:
        """Whether the work has ended and every event was taken."""
        with self._changed:
            return self._ended and not self._events

    def when_finished(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the work has ended: in the background thread, or at once if it has."""
        with self._changed:
            if not self._ended:
                self._when_finished.append(callback)
                return
        callback()

    @property
    def error(self) -> BaseException | None:
        """The exception that the work raised, if any."""
        return self._error

    def result(self) -> Result:
        """Return what the finished work returned, or raise what it raised."""
        if not self._ended:
            raise RuntimeError("the work is still under way")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def run(self) -> None:
        """Do the work. Called in the worker's thread."""
        try:
            self._result = self._work(self)
        except BaseException as error:  # passed on as it is: the main thread handles it
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for callback in self._when_finished:
            callback()


class Worker:
    """The background thread. A daemon: a model that does not answer cannot keep the program from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()
        self._unfinished = 0
        self._idle = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="medchat-engine", daemon=True)

    def start(self, work: Callable[[Job[Result]], Result]) -> Job[Result]:
        """Do `work` after all earlier jobs."""
        job = Job(work)
        with self._idle:
            self._unfinished += 1
        self._jobs.put(job)
        if not self._thread.is_alive():
            self._thread.start()
        return job

    def idle_within(self, seconds: float) -> bool:
        """Wait up to `seconds` for all work to end and return whether it has."""
        deadline = time.monotonic() + seconds
        with self._idle:
            while self._unfinished and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)
            return not self._unfinished

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            job.run()
            with self._idle:
                self._unfinished -= 1
                self._idle.notify_all()
