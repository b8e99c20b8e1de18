"""Training progress: a bar with loss, speed and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medchat.api import SFTEvent, SFTProgress, SFTReport
from medchat.cli.output import say_aside
from medchat.language import say

#: Where there is no bar, a line is printed each time this share of the run is done.
LINE_EVERY = 0.1


@dataclass(frozen=True)
class Watched:
    """Shows the progress of a run that writes no report."""

    show: Callable[[SFTProgress], None]
    cancel: threading.Event = field(default_factory=threading.Event)

    def told(self, event: SFTEvent) -> None:
        """Show a logged step; a run of this kind tells nothing else that matters."""
        if isinstance(event, SFTProgress):
            self.show(event)

    def finish(self, folder: Path, report: SFTReport) -> None:
        """Add nothing."""


@contextmanager
def show_training() -> Iterator[Callable[[SFTProgress], None]]:
    """Give a function that shows each logged step on stderr."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ:
        with _bar() as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """One line for each tenth of the run."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, progress: SFTProgress) -> None:
        done = progress.step / progress.total_steps
        if done >= self._next or progress.step == progress.total_steps:
            self._next = (int(done / LINE_EVERY) + 1) * LINE_EVERY
            say_aside(f"{done:4.0%}  {_figures(progress)}")


def _figures(progress: SFTProgress) -> str:
    left = progress.seconds / progress.step * (progress.total_steps - progress.step)
    step = f"{progress.step}/{progress.total_steps}"
    loss, speed = f"{progress.loss:.3f}", f"{progress.tokens_per_second:.0f}"
    return say(
        f"第 {step} 步  损失 {loss}  {speed} 词元/秒  剩余 {left:.0f} 秒",
        f"step {step}  loss {loss}  {speed} tokens/s  {left:.0f} s left",
    )


@contextmanager
def _bar() -> Iterator[Callable[[SFTProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn(say("训练", "training")),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, figures=say("准备中……", "preparing…"))

        def show(progress: SFTProgress) -> None:
            bar.update(task, completed=progress.step, total=progress.total_steps, figures=_figures(progress))

        yield show
