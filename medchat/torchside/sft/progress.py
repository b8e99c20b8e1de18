"""What a run says while it runs: one `SFTProgress` and one line of metrics.jsonl a logged step."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from transformers import TrainerCallback, TrainerControl, TrainerState

from medchat.api import SFTProgress

FILE_NAME = "metrics.jsonl"


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Listens to the Trainer, reports logged steps, and stops it once `cancel` is set."""

    def __init__(
        self, folder: Path, on_progress: Callable[[SFTProgress], None], cancel: threading.Event
    ) -> None:
        self._path = folder / FILE_NAME
        self._on_progress = on_progress
        self._cancel = cancel
        self._file: TextIO | None = None
        self._started = self._last_report = time.perf_counter()
        self._tokens = 0
        self.step = 0
        self.first_loss = float("nan")
        self.last_loss = float("nan")

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def count_tokens(self, tokens: int) -> None:
        """Add the tokens, padding left out, of one forward pass."""
        self._tokens += tokens

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._started = self._last_report = time.perf_counter()

    def on_substep_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop inside an accumulated batch too."""
        control.should_training_stop = control.should_training_stop or self._cancel.is_set()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log the last step, whatever the interval; stop when told to."""
        self.step = state.global_step
        control.should_log = control.should_log or state.global_step == state.max_steps
        control.should_training_stop = control.should_training_stop or self._cancel.is_set()

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Report one logged step; the Trainer's closing summary has no loss of its own and is left out."""
        if not logs or "loss" not in logs:
            return
        now = time.perf_counter()
        speed = self._tokens / max(now - self._last_report, 1e-9)
        self._tokens, self._last_report = 0, now
        progress = SFTProgress(
            step=state.global_step,
            total_steps=state.max_steps,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens_per_second=speed,
            seconds=now - self._started,
        )
        if self.first_loss != self.first_loss:
            self.first_loss = progress.loss
        self.last_loss = progress.loss
        self._write(progress, logs.get("grad_norm"), state.epoch)
        self._on_progress(progress)

    def _write(self, progress: SFTProgress, grad_norm: float | None, epoch: float | None) -> None:
        row = {
            "step": progress.step,
            "loss": progress.loss,
            "lr": progress.learning_rate,
            "tokens_per_second": round(progress.tokens_per_second, 1),
            "grad_norm": grad_norm,
            "epoch": epoch,
            "seconds": round(progress.seconds, 3),
        }
        if self._file:
            self._file.write(json.dumps(row) + "\n")
