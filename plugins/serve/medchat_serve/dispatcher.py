"""The one thread that uses the model, and the queue before it: one answer at a time, or several in a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from medchat.plugin_kit import OpenedModel, SavedConversations, say
from medchat_serve.api_error import ApiError
from medchat_serve.fair_queue import FairQueue, QueueFullError
from medchat_serve.job import AnswerJob, JobEnded, Queued

#: What a client is asked to wait before it tries again, in seconds for each that waits already.
_SECONDS_EACH = 5


class Dispatcher:
    """Takes jobs and has the model answer them: up to `batch` at a time where each is what it would be alone.

    A job that comes while others are answered joins them between two tokens.
    """

    def __init__(
        self,
        opened: OpenedModel,
        most_waiting: int,
        saved: SavedConversations | None = None,
        *,
        batch: int = 1,
    ) -> None:
        """Answers that persons asked for go into `saved`, if given."""
        self._opened, self._saved = opened, saved
        self._most = most_waiting
        #: How many are answered at a time.
        self.batch = batch if opened.exact_in_batch else 1
        self._queue: FairQueue[AnswerJob] = FairQueue(most_waiting)
        self._jobs: set[AnswerJob] = set()
        self._lock = threading.Lock()
        self._idle_since = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="answer", daemon=True)
        #: No new question is taken.
        self.stopping = False

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def under_way(self) -> int:
        """How many questions wait or are being answered."""
        return len(self._jobs)

    @property
    def idle_seconds(self) -> float:
        """For how long no question has been under way."""
        return 0.0 if self._jobs else time.monotonic() - self._idle_since

    def submit(self, job: AnswerJob, client: str) -> None:
        """Let `job` wait for its turn. Raises ApiError if too many wait, or the server is being stopped."""
        if self.stopping:
            raise stopping_error()
        with self._lock:
            self._jobs.add(job)
        try:
            self._queue.put(client, job)
        except QueueFullError:
            self._forget(job)
            seconds = max(1, _SECONDS_EACH * self._most)
            raise ApiError(
                429,
                say(
                    f"已有 {self._most} 个问题在排队，请稍后再试",
                    f"{self._most} questions wait already: try later",
                ),
                "queue_full",
                headers={"Retry-After": str(seconds)},
                notices=job.said,
            ) from None
        self._tell_places()

    def drop(self, job: AnswerJob) -> None:
        """Stop `job`: it leaves the queue, or the model ends its answer with the token that it is at."""
        job.cancel.set()
        if self._queue.remove(job):
            self._forget(job)
            self._tell_places()

    def stop(self) -> None:
        """Stop the answer under way, which ends with what has come of it, and refuse what waits."""
        self.stopping = True
        with self._lock:
            jobs = tuple(self._jobs)
        for job in jobs:
            job.cancel.set()
            if self._queue.remove(job):
                self._forget(job)
                job.tell(JobEnded(stopping_error()))

    def close(self, seconds: float) -> bool:
        """End the thread once nothing waits; return whether it came to its end within `seconds`."""
        self._queue.close()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        running: dict[AnswerJob, Iterator[None]] = {}
        while True:
            while len(running) < self.batch and (job := self._queue.take(wait=not running)) is not None:
                self._tell_places()
                running[job] = job.run(self._opened, self._saved, in_batch=self.batch > 1)
            if not running:
                return
            for job, pieces in tuple(running.items()):
                if next(pieces, job) is job:  # it has ended
                    del running[job]
                    self._forget(job)

    def _forget(self, job: AnswerJob) -> None:
        with self._lock:
            self._jobs.discard(job)
            self._idle_since = time.monotonic()

    def _tell_places(self) -> None:
        for place, job in enumerate(self._queue.in_order(), start=1):
            if job.request.shows_queue:
                job.tell(Queued(place))


def stopping_error() -> ApiError:
    """Return the refusal of a server that is being stopped."""
    return ApiError(
        503, say("服务正在停止", "the server is being stopped"), "stopping", headers={"Retry-After": "30"}
    )
