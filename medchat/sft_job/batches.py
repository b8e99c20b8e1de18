"""How an effective batch is divided over processes, accumulation steps and forward passes."""

from __future__ import annotations

from medchat.errors import UsageError
from medchat.language import say


def batch_layout(
    batch: int | None,
    micro: int | None,
    accumulation: int | None,
    processes: int = 1,
    *,
    default: tuple[int, int] = (16, 8),
) -> tuple[int, int, int]:
    """Return (effective batch, records per forward pass, passes per update) from what was requested.

    batch = micro x accumulation x processes. None: not requested; `default` is a batch and a micro batch to
    start from. Raises UsageError if what was requested is not divisible.
    """
    if batch is None and micro is not None and accumulation is not None:
        batch = micro * accumulation * processes
    if batch is None:
        # The default batch, rounded to a multiple of its required divisors.
        unit = processes * (micro or accumulation or 1)
        batch = max(1, round(default[0] / unit)) * unit
    share, rest = divmod(batch, processes)
    if rest:
        raise UsageError(
            say(
                f"--batch-size {batch} 不能由 {processes} 个进程平分",
                f"--batch-size {batch} cannot be divided evenly among {processes} processes",
            ),
            _near(batch, processes),
        )
    if micro is None and accumulation is not None:
        micro, rest = divmod(share, accumulation)
        if rest or not micro:
            unit = accumulation * processes
            raise _does_not_divide(batch, f"--gradient-accumulation {accumulation}", unit)
    if micro is None:
        micro = next(size for size in range(min(default[1], share), 0, -1) if share % size == 0)
    micro = min(micro, share)
    if share % micro:
        raise _does_not_divide(batch, f"--micro-batch-size {micro}", micro * processes)
    if accumulation is not None and accumulation != share // micro:
        raise UsageError(
            say(
                f"--batch-size {batch} 不等于 --micro-batch-size {micro} × --gradient-accumulation"
                f" {accumulation} × {processes} 个进程",
                f"--batch-size {batch} is not --micro-batch-size {micro} x --gradient-accumulation"
                f" {accumulation} x {processes} processes",
            ),
            say("去掉其中一项，它会自动推出", "leave one of them out; it follows from the others"),
        )
    return batch, micro, share // micro


def _does_not_divide(batch: int, by: str, unit: int) -> UsageError:
    return UsageError(
        say(f"--batch-size {batch} 不能被 {by} 整除", f"--batch-size {batch} cannot be divided by {by}"),
        _near(batch, unit),
    )


def _near(batch: int, unit: int) -> str:
    below, above = batch // unit * unit, (batch // unit + 1) * unit
    near = " | ".join(f"--batch-size {size}" for size in (below, above) if size)
    return say(f"例如 {near}", f"for example {near}")
