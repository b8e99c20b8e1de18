"""Whether the other processes of a run are there, and for how long one that is not has been waited for.

A process holds its part by a lock, which a file server may keep for a machine that has vanished. So every process
also sets its part's time of modification now and then (`Beat`): where that stays the same, nobody is there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from medchat import launcher
from medchat.batch.result_file import is_held

#: How often a part's time is set before a process without a change counts as missing.
_BEATS = 6


class Beat:
    """Sets the time of modification of the file at `path` now and then, until it is stopped."""

    def __init__(self, path: Path) -> None:
        self._path, self._over = path, threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(launcher.machine_timeout() / _BEATS):
            with suppress(OSError):  # the first process removes the part when all is done
                os.utime(self._path)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()


class Presence:
    """Which processes are there, by their parts: held, and of a time that changes."""

    def __init__(self, path_of: Callable[[int], Path], clock: Callable[[], float] = time.monotonic) -> None:
        self._path_of, self._clock = path_of, clock
        self._looked = clock()
        #: By rank: the time of the part, and for how many seconds it has been the same.
        self._unchanged: dict[int, tuple[int, float]] = {}

    def absent(self, ranks: Iterable[int]) -> list[int]:
        """Return those of the ranks whose process is not there. Raises MedchatError where a part cannot be read."""
        # Not longer than that: this process may itself have been stopped, and the others with it.
        limit, now = launcher.machine_timeout(), self._clock()
        passed, self._looked = min(now - self._looked, limit / _BEATS), now
        return [rank for rank in ranks if not self._is_there(rank, passed, limit)]

    def _is_there(self, rank: int, passed: float, limit: float) -> bool:
        path = self._path_of(rank)
        try:
            changed = path.stat().st_mtime_ns if is_held(path) else None
        except FileNotFoundError:
            changed = None
        if changed is None:
            self._unchanged.pop(rank, None)
            return False
        before, seconds = self._unchanged.get(rank, (None, 0.0))
        seconds = seconds + passed if changed == before else 0.0
        self._unchanged[rank] = changed, seconds
        return seconds <= limit


class Wait:
    """For how long processes have been missing: after a while that is said, in the end it is an error."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = False
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()

    def check(self, absent: Sequence[int]) -> None:
        """Say whom this process waits for, once. Raises MedchatError when it has waited long enough."""
        ranks, waited = ", ".join(map(str, absent)), time.monotonic() - self._since
        if waited > launcher.patience():
            raise launcher.nobody_came(ranks)
        if waited > launcher.SILENCE and not self._told:
            self._told = True
            self._tell(launcher.waiting_for(ranks))
