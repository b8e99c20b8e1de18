"""Progress of batch inference: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from medchat.cli.output import say_aside, stderr_redraws
from medchat.language import say
from medchat.units import clock

#: Without a bar, a line is printed after each such share, or after this many seconds.
LINE_EVERY, SECONDS_A_LINE = 0.1, 30.0


@dataclass
class InferProgress:
    """The progress of a run. `before` of the `total` questions were answered by earlier runs."""

    total: int
    before: int = 0
    answered: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        """Start the clock: the model is ready."""
        self.started = time.perf_counter()

    def add(self, questions: int, tokens: int) -> None:
        """Count answers that were stored."""
        self.answered += questions
        self.tokens += tokens

    @property
    def done(self) -> int:
        """The number of questions that are done."""
        return self.before + self.answered

    @property
    def seconds(self) -> float:
        """Seconds since the model was ready."""
        return max(1e-9, time.perf_counter() - self.started)

    def figures(self) -> str:
        """Return the counts, the speed and the time left, in the interface language."""
        rate, speed = self.answered / self.seconds, self.tokens / self.seconds
        left = clock((self.total - self.done) / rate) if rate else "?"
        return say(
            f"{self.done}/{self.total}  {rate:.2f} 题/秒  {speed:.0f} 词元/秒  剩余 {left}",
            f"{self.done}/{self.total}  {rate:.2f} questions/s  {speed:.0f} tokens/s  {left} left",
        )


Show = Callable[[], None]
#: Prints a line without breaking the bar.
Tell = Callable[[str], None]


@contextmanager
def show_progress(progress: InferProgress, *, quiet: bool) -> Iterator[tuple[Show, Tell]]:
    """Yield a function that shows the present `progress` on stderr, and one that prints a line meanwhile."""
    if quiet:
        yield (lambda: None), say_aside
    elif stderr_redraws():
        with _bar(progress) as shown:
            yield shown
    else:
        yield _Lines(progress), say_aside


class _Lines:
    """A line for each tenth of the run, and at intervals."""

    def __init__(self, progress: InferProgress) -> None:
        self._progress = progress
        self._next = 0.0
        self._last = 0.0

    def __call__(self) -> None:
        progress = self._progress
        share, now = progress.done / max(1, progress.total), time.monotonic()
        if share >= self._next or now - self._last >= SECONDS_A_LINE:
            self._next = (int(share / LINE_EVERY) + 1) * LINE_EVERY
            self._last = now
            say_aside(f"{share:4.0%}  {progress.figures()}")


@contextmanager
def _bar(progress: InferProgress) -> Iterator[tuple[Show, Tell]]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(say("回答", "answering")),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(
            "", total=progress.total, completed=progress.done, figures=f"{progress.done}/{progress.total}"
        )

        def show() -> None:
            bar.update(task, completed=progress.done, figures=progress.figures())

        def tell(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield show, tell
