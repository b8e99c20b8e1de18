"""How many steps a run takes, and after which of them it logs, evaluates and saves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medchat.api import SFTOptions
from medchat.language import say

#: A run with fewer intervals than this gets shorter ones (docs/specs/training.md, "Small runs").
FEWEST_INTERVALS = 10


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps are optimizer steps, counted from 1. Intervals are in steps, 0 is never."""

    steps: int
    logging: int
    evaluation: int
    saving: int
    #: The share of the steps in which the learning rate warms up from 0.
    warmup: float = 0.0
    #: Notes on intervals that were made shorter, in the interface language.
    notes: tuple[str, ...] = ()

    def logs_at(self, step: int) -> bool:
        """Whether the loss is logged after this step: also after the first and last, and before an evaluation."""
        return step in (1, self.steps) or step % self.logging == 0 or self.evaluates_at(step)

    def evaluates_at(self, step: int) -> bool:
        """Whether the held-out loss is computed after this step."""
        return bool(self.evaluation) and (step == self.steps or step % self.evaluation == 0)

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is written after this step."""
        return bool(self.saving) and (step == self.steps or step % self.saving == 0)


def make_schedule(options: SFTOptions, steps_per_epoch: int, *, evaluates: bool) -> Schedule:
    """Return the schedule of a run; `evaluates` is False without held-out data."""
    steps = options.max_steps or math.ceil(options.num_epochs * steps_per_epoch)
    notes: list[str] = []

    def interval(name: str, wanted: int) -> int:
        if wanted <= 0:
            return steps_per_epoch if wanted == 0 else 0
        if steps >= FEWEST_INTERVALS * wanted:
            return wanted
        shorter = max(1, steps // FEWEST_INTERVALS)
        if shorter != wanted:
            notes.append(
                say(
                    f"训练只有 {steps} 步：--{name} 由 {wanted} 改为 {shorter}",
                    f"the run has only {steps} steps: --{name} is {shorter} in place of {wanted}",
                )
            )
        return shorter

    warmup = options.warmup_ratio
    if steps == 1 and warmup and options.scheduler != "constant":
        # A single step would be the first of the warm-up, with a learning rate of 0.
        warmup = 0.0
        notes.append(say("训练只有 1 步：不预热", "the run has only 1 step: there is no warm-up"))
    return Schedule(
        steps=steps,
        logging=interval("logging-steps", options.logging_steps),
        evaluation=interval("eval-steps", options.eval_steps) if evaluates else 0,
        saving=interval("save-steps", options.save_steps),
        warmup=warmup,
        notes=tuple(notes),
    )
