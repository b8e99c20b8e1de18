"""What bounds the calls of a command, and the flags that say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click

from medchat.errors import UsageError
from medchat.language import say

F = TypeVar("F", bound=Callable[..., Any])
#: More callers than this wait for each other at the endpoint.
_MOST_CALLERS = 32
_MOST_RPM, _MOST_TPM = 1_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls go at a time, how many requests and tokens go in a minute, and what all may cost.

    Prices are for a million tokens, in the money of `budget`. None is no limit, or a price that is not known.
    """

    concurrency: int = 1
    rpm: int | None = None
    tpm: int | None = None
    price_in: float | None = None
    price_out: float | None = None
    budget: float | None = None

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> CallLimits:
        """Return what the flags of `call_flags` say. Raises UsageError for one price without the other."""
        limits = cls(**{one.name: flags[one.name] for one in fields(cls) if flags.get(one.name) is not None})
        if (limits.price_in is None) is not (limits.price_out is None):
            raise UsageError(
                say("只给出了一个价格", "only one of the two prices is given"),
                say("同时写 --price-in 和 --price-out", "give both --price-in and --price-out"),
            )
        return limits

    @property
    def options(self) -> tuple[str, ...]:
        """The rates as `open_model` takes them: `option=limits.options`."""
        rates = {"rpm": self.rpm, "tpm": self.tpm}
        return tuple(f"{name}={rate}" for name, rate in rates.items() if rate is not None)

    def prices(self, stated: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return the prices by which calls are counted, in the form of `ChatModel.describe`; empty for none.

        `stated` are those of the model itself, which count where the user gives none. Raises UsageError for a budget
        without prices.
        """
        if self.price_in is not None and self.price_out is not None:
            return {"prompt": self.price_in, "completion": self.price_out, "currency": ""}
        if self.budget is not None and not stated:
            raise UsageError(
                say("有 --budget，但不知道价格", "--budget is given, but no prices"),
                say(
                    "加上 --price-in 和 --price-out（每百万词元）",
                    "add --price-in and --price-out (for a million tokens)",
                ),
            )
        return stated or {}


def call_flags(command: F) -> F:
    """Add the flags of `CallLimits`: `concurrency`, `rpm`, `tpm`, `price_in`, `price_out`, `budget`."""
    for decorate in reversed((*_rate_flags(), *_price_flags())):
        command = decorate(command)
    return command


def _rate_flags() -> list[Callable[[F], F]]:
    return [
        click.option(
            "--concurrency",
            type=click.IntRange(1, _MOST_CALLERS),
            metavar="N",
            default=1,
            show_default=True,
            help=say("同时进行的调用数（远程模型）", "calls at a time (remote models)"),
        ),
        click.option(
            "--rpm",
            type=click.IntRange(1, _MOST_RPM),
            metavar="N",
            help=say("每分钟最多请求数，含重试", "most requests a minute, retries included"),
        ),
        click.option(
            "--tpm",
            type=click.IntRange(1, _MOST_TPM),
            metavar="N",
            help=say("每分钟最多词元数", "most tokens a minute"),
        ),
    ]


def _price_flags() -> list[Callable[[F], F]]:
    price = click.FloatRange(0)
    return [
        click.option(
            "--price-in",
            type=price,
            metavar="X",
            help=say("每百万提示词元的价格", "price of a million prompt tokens"),
        ),
        click.option(
            "--price-out",
            type=price,
            metavar="X",
            help=say("每百万回答词元的价格", "price of a million answer tokens"),
        ),
        click.option(
            "--budget",
            type=price,
            metavar="X",
            help=say(
                "总花费上限：下一次调用可能超出时就停下，以后可以 --resume",
                "most that all may cost: stops before a call that could pass it; --resume goes on later",
            ),
        ),
    ]
