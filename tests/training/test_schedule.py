"""When a run logs, evaluates and saves; which examples its batches hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.api import SFTOptions
from medchat.training.schedule import Schedule, make_schedule

OPTIONS = SFTOptions(model=Path("unused"), output=Path("unused"), num_epochs=3.0)


def made(steps_per_epoch: int, *, evaluates: bool = True, **changes: float) -> Schedule:
    return make_schedule(replace(OPTIONS, **changes), steps_per_epoch, evaluates=evaluates)  # type: ignore[arg-type]


def steps_of(schedule: Schedule, what: str) -> list[int]:
    return [step for step in range(1, schedule.steps + 1) if getattr(schedule, what)(step)]


def test_zero_is_once_an_epoch_and_the_last_step_of_all() -> None:
    schedule = made(40, num_epochs=2.5, eval_steps=0, save_steps=0)
    assert schedule.steps == 100
    assert steps_of(schedule, "saves_at") == steps_of(schedule, "evaluates_at") == [40, 80, 100]
    assert schedule.notes == ()


def test_minus_one_is_never() -> None:
    schedule = made(40, eval_steps=-1, save_steps=-1)
    assert steps_of(schedule, "saves_at") == steps_of(schedule, "evaluates_at") == []


def test_without_held_out_data_nothing_is_evaluated() -> None:
    assert steps_of(made(40, evaluates=False, eval_steps=5), "evaluates_at") == []


def test_intervals_a_run_is_too_short_for_shrink_to_a_tenth_of_it_and_that_is_said() -> None:
    schedule = made(60, num_epochs=1.0, logging_steps=10, eval_steps=32, save_steps=6)
    assert (schedule.logging, schedule.evaluation, schedule.saving) == (6, 6, 6)
    assert len(schedule.notes) == 2
    for note, (flag, before) in zip(
        schedule.notes, (("--logging-steps", 10), ("--eval-steps", 32)), strict=True
    ):
        assert flag in note and f" {before} " in note and note.endswith(" 6")


def test_very_short_runs_log_each_step() -> None:
    schedule = made(3, num_epochs=1.0, logging_steps=10, eval_steps=32, save_steps=32)
    assert steps_of(schedule, "logs_at") == steps_of(schedule, "saves_at") == [1, 2, 3]


def test_max_steps_goes_over_epochs() -> None:
    schedule = made(40, max_steps=7)
    assert schedule.steps == 7
    assert steps_of(schedule, "saves_at") == [7]


@given(st.integers(1, 500), st.integers(1, 50), st.integers(-1, 50))
def test_the_first_and_last_steps_are_logged_and_so_is_each_before_an_evaluation(
    steps: int, logging: int, evaluation: int
) -> None:
    schedule = made(steps, num_epochs=1.0, logging_steps=logging, eval_steps=evaluation)
    assert schedule.logs_at(1) and schedule.logs_at(steps)
    assert all(schedule.logs_at(step) for step in steps_of(schedule, "evaluates_at"))


# ---------------------------------------------------------------- batches


@pytest.mark.torch
@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=80),
    st.sampled_from([(8, 8), (8, 4), (8, 2), (8, 1), (1, 1), (24, 4)]),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
def test_each_example_is_in_one_batch_and_steps_are_the_same_for_any_number_of_processes(
    lengths: list[int], sizes: tuple[int, int], processes: int, grouped: bool
) -> None:
    from medchat.training.data_loader import BatchSampler

    batch, micro = sizes
    if batch % (micro * processes):
        processes = 1
    one = BatchSampler(lengths, batch, batch, 1, seed=3, grouped=grouped)
    order = BatchSampler(lengths, batch, micro, processes, seed=3, grouped=grouped)
    parts = [list(order.of_process(1, process)) for process in range(processes)]
    assert {len(part) for part in parts} == {order.micro_batches}
    assert all(len(micro_batch) <= micro for part in parts for micro_batch in part)
    steps = []
    for start in range(0, order.micro_batches, order.accumulation):
        together = [part[start : start + order.accumulation] for part in parts]
        steps.append(sorted(index for part in together for micro_batch in part for index in micro_batch))
    assert steps == [sorted(step) for step in one.epoch(1)]
    assert len(steps) == order.steps
    assert sorted(index for step in steps for index in step) == list(range(len(lengths)))
