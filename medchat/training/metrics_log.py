"""The progress of a run: events for the watcher, each also logged as a line of metrics.jsonl.

The log of a run that was killed and resumed equals that of an uninterrupted one: lines after the checkpoint
are cut off, and sums over a logging interval are restored.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from medchat.api import SFTEvaluation, SFTEvent, SFTProgress
from medchat.regular_files import read_regular
from medchat.training.single_process import ProcessGroup
from medchat.whole_file import write_whole_file

#: The limit of a run's log in bytes: about a million steps.
_LARGEST = 256 * 2**20


@dataclass
class Counters:
    """The counters that a resumed run's log continues from. Saved in every checkpoint."""

    first_loss: float | None = None
    last_loss: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    #: The held-out loss before the first step, None without held-out data.
    loss_before: float | None = None
    evaluations_since_best: int = 0
    stopped_early: bool = False
    #: Of the Trainer: losses summed since the last logged step, and that step.
    summed_loss: float = 0.0
    last_logged_step: int = 0


class StepLog:
    """Writes metrics.jsonl and passes each event to `tell`, which only the main process has."""

    def __init__(self, path: Path, tell: Callable[[SFTEvent], None] | None) -> None:
        self._path = path
        self._tell = tell
        self._file: TextIO | None = None
        self._started = self._reported = time.perf_counter()
        self._tokens_reported = 0
        #: Tokens without padding that this process trained on since `collect_tokens`.
        self.pending_tokens = 0
        self.counters = Counters()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def begin(self, step: int, counters: Counters | None) -> None:
        """Start the clock after `step`; lines of later steps, which a killed run wrote, are removed."""
        self.counters = counters or Counters()
        self._tokens_reported = self.counters.tokens
        self._reported = time.perf_counter()
        self._started = self._reported - self.counters.seconds
        if self._tell:
            kept = [line for line in _lines(self._path) if step and _step_of(line) <= step]
            write_whole_file(self._path, "".join(kept))
            self._file = self._path.open("a", encoding="utf-8", buffering=1)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without interruptions."""
        return time.perf_counter() - self._started

    def tell(self, event: SFTEvent) -> None:
        """Pass on an event."""
        if self._tell:
            self._tell(event)

    def collect_tokens(self, processes: ProcessGroup) -> None:
        """Add up the tokens of all processes."""
        self.counters.tokens += sum(processes.all_gather(self.pending_tokens))
        self.pending_tokens = 0

    def state(self) -> dict[str, Any]:
        """Return the counters for a checkpoint, after flushing the log to disk."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self.counters.seconds = self.seconds
        return asdict(self.counters)

    def log_step(
        self, step: int, total: int, loss: float, rate: float, epoch: float, grad_norm: float | None
    ) -> None:
        """Log the mean loss since the last logged step."""
        now, counters = time.perf_counter(), self.counters
        speed = (counters.tokens - self._tokens_reported) / max(now - self._reported, 1e-9)
        self._tokens_reported, self._reported = counters.tokens, now
        if counters.first_loss is None:
            counters.first_loss = loss
        counters.last_loss = loss
        progress = SFTProgress(step, total, loss, rate, speed, self.seconds, epoch, grad_norm)
        self._write(
            {
                "step": step,
                "loss": loss,
                "lr": rate,
                "tokens_per_second": round(speed, 1),
                "grad_norm": grad_norm,
                "epoch": epoch,
                "seconds": round(progress.seconds, 3),
            }
        )
        self.tell(progress)

    def log_initial_eval(self, loss: float) -> None:
        """Log the held-out loss before the first step, the baseline of all later ones."""
        self.counters.loss_before = loss
        self.log_eval(0, loss, 0.0, best=False)
        self._started = self._reported

    def log_eval(self, step: int, loss: float, epoch: float, *, best: bool) -> None:
        """Log a held-out loss. Its time is left out of the training speed."""
        evaluation = SFTEvaluation(step, loss, perplexity(loss), best)
        row = {"step": step, "eval_loss": loss, "perplexity": evaluation.perplexity, "best": best}
        self._write({**row, "epoch": epoch, "seconds": round(self.seconds, 3)})
        self.tell(evaluation)
        self._reported = time.perf_counter()

    def _write(self, row: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(row) + "\n")


def perplexity(loss: float) -> float:
    """Return e to the loss, infinite if that overflows a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _lines(path: Path) -> list[str]:
    """The complete lines of a log, whose last one may be torn."""
    if not path.exists():
        return []
    text = read_regular(path, _LARGEST).decode("utf-8", "replace")
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
