"""When the trainer logs, evaluates, saves and stops, and what it does before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

if TYPE_CHECKING:
    from medchat.torchside.sft.trainer import LabelTrainer, Run


class Flow(TrainerCallback):  # type: ignore[misc]
    """Says after which steps the Trainer logs, evaluates, saves and stops."""

    def __init__(self, run: Run) -> None:
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
        """Report a logged step; the Trainer's closing summary and evaluations have no such loss."""
        if logs and "loss" in logs:
            self._run.log.collect_tokens(self._run.processes)
            self._run.log.logged(
                state.global_step,
                state.max_steps,
                logs["loss"],
                logs["learning_rate"],
                state.epoch,
                logs.get("grad_norm"),
            )


class Beginning(TrainerCallback):  # type: ignore[misc]
    """Looks at what training starts from; takes up the sums of the interval within which a run was stopped."""

    def __init__(self, trainer: LabelTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after the Trainer set its sums to zero."""
        counters = self._trainer.run.log.counters
        self._trainer._tr_loss += counters.summed_loss
        self._trainer._globalstep_last_logged = counters.last_logged_step
        self._trainer.evaluate_start()
