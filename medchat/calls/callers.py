"""How the calls of a command reach the model: in threads, or together in one where it streams several answers exactly.

Both give a future for each call. Used in one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol

from medchat.asking import OpenedModel
from medchat.errors import MemoryShortageError
from medchat.whole_answer import Answer

#: So many calls to a model on this machine are answered together, where memory allows it.
TOGETHER = 8


class Callers(Protocol):
    """Where calls are handed in, up to `width` at a time."""

    @property
    def width(self) -> int:
        """How many calls may be under way."""
        ...

    def submit(self, prompt: str) -> Future[Answer]:
        """Hand in a call."""
        ...

    def ended(self, under_way: Collection[Future[Answer]]) -> Collection[Future[Answer]]:
        """Wait until one of the calls has ended; return those that have."""
        ...

    def end_all(self, under_way: Collection[Future[Answer]]) -> None:
        """Wait until all of them have ended, after `cancel` was set."""
        ...


@contextmanager
def open_callers(opened: OpenedModel, concurrency: int, cancel: threading.Event) -> Iterator[Callers]:
    """Give the way in which that model is best called: `concurrency` is for one that answers several threads."""
    if not opened.is_concurrent and opened.exact_in_batch:
        yield _Together(opened, cancel)
        return
    workers = concurrency if opened.is_concurrent else 1
    with ThreadPoolExecutor(workers, thread_name_prefix="medchat-call") as pool:
        yield _Threads(opened, cancel, pool, workers)


class _Threads:
    def __init__(
        self, opened: OpenedModel, cancel: threading.Event, pool: ThreadPoolExecutor, workers: int
    ) -> None:
        self._opened, self._cancel, self._pool, self.width = opened, cancel, pool, workers

    def submit(self, prompt: str) -> Future[Answer]:
        return self._pool.submit(self._opened.ask, prompt, cancel=self._cancel)

    def ended(self, under_way: Collection[Future[Answer]]) -> Collection[Future[Answer]]:
        return wait(under_way, return_when=FIRST_COMPLETED)[0]

    def end_all(self, under_way: Collection[Future[Answer]]) -> None:
        wait(under_way)


class _Together:
    """Each call takes a piece of its answer in turn; the model computes the next tokens of all at once."""

    def __init__(self, opened: OpenedModel, cancel: threading.Event) -> None:
        self._opened, self._cancel, self.width = opened, cancel, TOGETHER
        self._prompts: dict[Future[Answer], str] = {}
        self._going: dict[Future[Answer], Generator[None, None, Answer]] = {}

    def submit(self, prompt: str) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._prompts[future] = prompt
        return future

    def ended(self, under_way: Collection[Future[Answer]]) -> Collection[Future[Answer]]:
        while not (done := [future for future in under_way if future.done()]):
            self._begin()
            for future in list(self._going):
                self._advance(future)
        return done

    def end_all(self, under_way: Collection[Future[Answer]]) -> None:
        for future in under_way:
            while not future.done():
                self._begin()
                try:
                    self._advance(future)
                except BaseException:  # the first error is on its way already
                    continue

    def _begin(self) -> None:
        for future in list(self._prompts)[: self.width]:
            if future not in self._going:
                self._going[future] = self._opened.answering(
                    self._prompts[future], cancel=self._cancel, in_batch=True
                )

    def _advance(self, future: Future[Answer]) -> None:
        """Let the answer take a piece. Where memory runs out all begin again, half as many at a time."""
        if future not in self._going:
            return
        try:
            next(self._going[future])
        except StopIteration as end:
            self._end(future).set_result(end.value)
        except MemoryShortageError as error:
            if len(self._going) == 1:
                self._end(future).set_exception(error)
                return
            self.width = max(1, len(self._going) // 2)
            for answering in self._going.values():
                answering.close()
            self._going.clear()
        except Exception as error:
            self._end(future).set_exception(error)
        except BaseException as error:
            self._end(future).set_exception(error)
            raise

    def _end(self, future: Future[Answer]) -> Future[Answer]:
        del self._going[future], self._prompts[future]
        return future
