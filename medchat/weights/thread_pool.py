"""A few threads that work through a list, and stop together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
#: How long the threads are given to end in order once something went wrong (seconds).
GRACE = 2.0
_LOOK = 0.1


class DaemonThreadPool(Generic[T]):
    """Runs `work(item, cancel)` for every item in `workers` threads.

    The threads are daemons: Ctrl-C need not wait for a server that says nothing, as it would for those of
    concurrent.futures, which the interpreter joins when it ends.
    """

    def __init__(self, work: Callable[[T, threading.Event], None], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._cancel = threading.Event()
        self._failure: list[BaseException] = []

    def run(self, items: Sequence[T]) -> None:
        """Return when all is done. The first failure stops the others and is raised; so does Ctrl-C."""
        waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
        for item in items:
            waiting.put(item)
        threads = [
            threading.Thread(target=self._run_worker, args=(waiting,), daemon=True)
            for _ in range(min(self._workers, len(items)))
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(_LOOK)
                threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
        finally:
            self._cancel.set()
            for thread in threads:
                thread.join(GRACE)
        if self._failure:
            raise self._failure[0]

    def _run_worker(self, waiting: queue.SimpleQueue[T]) -> None:
        while not self._cancel.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._work(item, self._cancel)
            except BaseException as error:
                self._failure.append(error)
                self._cancel.set()
                return
