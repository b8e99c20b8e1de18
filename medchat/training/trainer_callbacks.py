"""The Trainer's callbacks: when it logs, evaluates, saves and stops, and what it does before its first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from medchat.training.training_run import TrainingRun


class ScheduleCallback(TrainerCallback):  # type: ignore[misc]
    """Decides after which steps the Trainer logs, evaluates, saves and stops."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Follow the schedule; once cancelled, save and stop."""
        step, schedule = state.global_step, self._run.schedule
        cancelled = self._run.processes.any(self._run.watch.cancel.is_set())
        control.should_log = schedule.logs_at(step)
        control.should_evaluate = schedule.evaluates_at(step)
        control.should_save = schedule.saves_at(step) or cancelled
        control.should_training_stop |= cancelled

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Log a step; the Trainer's final summary and evaluations have no such loss."""
        if logs and "loss" in logs:
            self._run.log.collect_tokens(self._run.processes)
            self._run.log.log_step(
                state.global_step,
                state.max_steps,
                logs["loss"],
                logs["learning_rate"],
                state.epoch,
                logs.get("grad_norm"),
            )


class InitialEvalCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates before the first step; restores the sums of the logging interval in which a run was stopped."""

    def __init__(self, trainer: Trainer, run: TrainingRun, evaluate: Callable[[], None]) -> None:
        self._trainer, self._run, self._evaluate = trainer, run, evaluate

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Runs after the Trainer set its sums to zero."""
        counters = self._run.log.counters
        self._trainer._tr_loss += counters.summed_loss
        self._trainer._globalstep_last_logged = counters.last_logged_step
        self._evaluate()
