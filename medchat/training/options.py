"""Refuses settings that no run can have, by the flag's name, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from medchat.api import SFTOptions, option_facts
from medchat.api.option import option_flag
from medchat.errors import UsageError
from medchat.language import say


def check_options(options: SFTOptions) -> None:
    """Raise UsageError for settings no run can have."""
    for name, facts in option_facts().items():
        value = getattr(options, name)
        allowed = facts.allowed
        # What a person types was checked against the full range before. Here only lower bounds count, and the
        # upper bounds of shares, which are below 1.
        if allowed is not None and value not in allowed and (not value > allowed.high or allowed.high < 1):
            raise _invalid(name, value, str(allowed))
        if facts.choices and not set(value if isinstance(value, tuple) else (value,)) <= set(facts.choices):
            raise _invalid(name, value, " | ".join(facts.choices))
    micro = min(options.micro_batch_size, options.batch_size)
    if options.batch_size % micro:
        raise UsageError(
            say(
                f"--batch-size {options.batch_size} 不是 --micro-batch-size {micro} 的整数倍",
                f"--batch-size {options.batch_size} is not a multiple of --micro-batch-size {micro}",
            ),
            say(f"例如 --batch-size {micro}", f"for example --batch-size {micro}"),
        )


def _invalid(name: str, value: object, meaning: str) -> UsageError:
    flag = option_flag(name)
    return UsageError(
        say(f"{flag} 的值 {value} 无效", f"{flag} {value} is not valid"),
        say(f"应为 {meaning}", f"it must be {meaning}"),
    )


def check_collator(options: SFTOptions, collators: Sequence[str]) -> None:
    """Raise UsageError for a collator that the family does not have."""
    if options.collator not in collators:
        raise UsageError(
            say(f"没有名为“{options.collator}”的 collator", f"no collator is named {options.collator!r}"),
            say(f"可选：{'、'.join(collators)}", f"choose one of {', '.join(collators)}"),
        )


def check_early_stopping(options: SFTOptions, *, held_out: bool) -> None:
    """Raise UsageError for early stopping without evaluations."""
    if options.early_stopping and not (held_out and options.eval_steps >= 0):
        raise UsageError(
            say(
                "--early-stopping 要看评估损失，而这次训练不评估",
                "--early-stopping needs the held-out loss, but this run evaluates nothing",
            ),
            say(
                "用 --val-size 留出数据并去掉 --eval-steps -1，或去掉 --early-stopping",
                "hold records out with --val-size and drop --eval-steps -1, or drop --early-stopping",
            ),
        )


def micro_batch_of(options: SFTOptions, processes: int) -> int:
    """Return how many examples each process computes at once: what was requested, or fewer if that is too many.

    Raises UsageError if the effective batch cannot be divided evenly.
    """
    share, rest = divmod(options.batch_size, processes)
    if rest:
        lower, upper = share * processes, (share + 1) * processes
        raise UsageError(
            say(
                f"--batch-size {options.batch_size} 无法由 {processes} 个进程平分",
                f"--batch-size {options.batch_size} cannot be divided evenly among {processes} processes",
            ),
            say(f"例如 --batch-size {lower or upper}", f"for example --batch-size {lower or upper}"),
        )
    return next(size for size in range(min(options.micro_batch_size, share), 0, -1) if share % size == 0)
