"""Progress of a download or a check: a bar with speed and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medchat.cli.output import say_aside, stderr_redraws
from medchat.language import say
from medchat.units import amount

#: Without a bar, a line is printed after each such share, or after this many seconds.
LINE_EVERY, SECONDS_A_LINE = 0.1, 30.0


class PullProgress:
    """Counts bytes from several threads and shows them: the `Watcher` of a pull."""

    def __init__(self, show: Callable[[int, int], None], tell: Callable[[str], None]) -> None:
        self._show = show
        self._tell = tell
        self._lock = threading.Lock()
        self._total = 0
        self._done = 0

    def begin(self, total: int, done: int = 0) -> None:
        """Set the total number of bytes and how many of them are done."""
        with self._lock:
            self._total, self._done = total, done
            self._show(done, total)

    def advance(self, count: int) -> None:
        """Add bytes; negative after a restart."""
        with self._lock:
            self._done += count
            self._show(self._done, self._total)

    def tell(self, line: str) -> None:
        """Print a line without breaking the bar."""
        with self._lock:
            self._tell(line)


@contextmanager
def show_pull(label: str = "") -> Iterator[PullProgress]:
    """Yield the progress of a download, shown on stderr. The libraries' own messages are suppressed."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        if stderr_redraws():
            with _bar(label or say("下载", "fetching")) as progress:
                yield progress
        else:
            yield PullProgress(_Lines(), say_aside)
    finally:
        logger.setLevel(before)


class _Lines:
    """A line for each tenth of the whole, and at intervals."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        share, now = done / max(1, total), time.monotonic()
        if total and (share >= self._next or now - self._last >= SECONDS_A_LINE):
            self._next = (int(share / LINE_EVERY) + 1) * LINE_EVERY
            self._last = now
            say_aside(f"{share:4.0%}  {amount(max(0, done))} / {amount(total)}")


@contextmanager
def _bar(label: str) -> Iterator[PullProgress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(label, total=None)
        yield PullProgress(
            lambda done, total: bar.update(task, completed=done, total=total or None),
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
