"""The progress of a training run: a bar with loss, speed and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medchat.api import SFTEvaluation, SFTEvent, SFTNote, SFTProgress, SFTReport, SFTSaved, SFTStatus
from medchat.cli.output import say_aside
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.units import clock

#: Without a bar, a line is printed after each such share of the run, or after this many seconds.
LINE_EVERY, SECONDS_A_LINE = 0.1, 60.0

#: Shows an event of a run.
EventPrinter = Callable[[SFTEvent], None]


@dataclass(frozen=True)
class SilentWatcher:
    """A watcher for a run without a report."""

    show: EventPrinter
    cancel: threading.Event = field(default_factory=threading.Event)

    def on_event(self, event: SFTEvent) -> None:
        """Show the event, unless it is about checkpoints."""
        if not isinstance(event, SFTSaved):
            self.show(event)

    def finish(self, folder: Path, report: SFTReport) -> None:
        """Do nothing."""


@contextmanager
def show_training(*, quiet: bool = False) -> Iterator[EventPrinter]:
    """Yield a function that shows each event on stderr; `quiet` for all but one process."""
    if quiet:
        yield _everywhere
    elif on_colour_terminal():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


def _everywhere(event: SFTEvent) -> None:
    if isinstance(event, SFTNote) and event.everywhere:
        say_aside(sanitize_line(event.text, 600))


def on_colour_terminal() -> bool:
    """Whether stderr is a terminal with colour and live regions."""
    plain = os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ
    return sys.stderr is not None and sys.stderr.isatty() and not plain


class _TimeLeft:
    """Estimates the time left from the speed since the first logged step: a resumed run starts in the middle."""

    def __init__(self) -> None:
        self._first: SFTProgress | None = None

    def of(self, progress: SFTProgress) -> str:
        first = self._first = self._first or progress
        steps, seconds = progress.step - first.step, progress.seconds - first.seconds
        if not steps:
            steps, seconds = progress.step, progress.seconds
        return clock(seconds / max(1, steps) * (progress.total_steps - progress.step))


def _figures(progress: SFTProgress, left: str) -> str:
    step = f"{progress.step}/{progress.total_steps}"
    loss, speed = f"{progress.loss:.3f}", f"{progress.tokens_per_second:.0f}"
    return say(
        f"第 {step} 步  损失 {loss}  {speed} 词元/秒  剩余 {left}",
        f"step {step}  loss {loss}  {speed} tokens/s  {left} left",
    )


def event_line(event: SFTEvent) -> str:
    """Return the line for an event other than progress."""
    if isinstance(event, SFTEvaluation) and not event.step:
        return say(
            f"训练前的评估：损失 {event.loss:.4f}，困惑度 {event.perplexity:.2f}",
            f"evaluation before training: loss {event.loss:.4f}, perplexity {event.perplexity:.2f}",
        )
    if isinstance(event, SFTEvaluation):
        best = say("（目前最好）", " (best so far)") if event.best else ""
        return say(
            f"第 {event.step} 步评估：损失 {event.loss:.4f}，困惑度 {event.perplexity:.2f}{best}",
            f"evaluation at step {event.step}: loss {event.loss:.4f}, perplexity {event.perplexity:.2f}{best}",
        )
    if isinstance(event, SFTSaved):
        name = sanitize_line(event.folder.name, 80)
        return say(f"已保存检查点 {name}", f"checkpoint {name} is saved")
    if isinstance(event, SFTStatus):
        return sanitize_line(event.text, 80) + say("……", "…")
    return sanitize_line(event.text, 600) if isinstance(event, SFTNote) else ""


class _Lines:
    """A line for each tenth of the run and at intervals, and one for every other event."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = time.monotonic()
        self._left = _TimeLeft()

    def __call__(self, event: SFTEvent) -> None:
        if not isinstance(event, SFTProgress):
            say_aside(event_line(event))
            return
        left, now = self._left.of(event), time.monotonic()
        done = event.step / max(1, event.total_steps)
        if done >= self._next or event.step >= event.total_steps or now - self._last >= SECONDS_A_LINE:
            self._next = (int(done / LINE_EVERY) + 1) * LINE_EVERY
            self._last = now
            say_aside(f"{done:4.0%}  {_figures(event, left)}")


@contextmanager
def _bar() -> Iterator[EventPrinter]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    columns = (
        TextColumn(say("训练", "training")),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True)),
    )
    console = Console(stderr=True)
    left = _TimeLeft()
    stepping = False
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task("", total=None, figures=say("准备中……", "preparing…"))

        def show(event: SFTEvent) -> None:
            nonlocal stepping
            if isinstance(event, SFTStatus) and not stepping:
                bar.update(task, figures=event_line(event))
            elif isinstance(event, SFTProgress):
                stepping = True
                figures = _figures(event, left.of(event))
                bar.update(task, completed=event.step, total=event.total_steps, figures=figures)
            else:
                console.print(event_line(event), markup=False, highlight=False, soft_wrap=True)

        yield show
