"""The flags that filter sessions, for `list` and `delete`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from medchat.errors import UsageError
from medchat.language import say
from medchat.store import SessionFilter

Command = TypeVar("Command", bound=Callable[..., Any])

#: "3d", "2w", "12h" ago.
_AGO = re.compile(r"(\d{1,4})\s*(h|d|w|小时|天|周)")
_UNITS = {"h": "hours", "小时": "hours", "d": "days", "天": "days", "w": "weeks", "周": "weeks"}


def filter_flags(function: Command) -> Command:
    """Add the flags that `chosen_filter` reads."""
    for option in (
        click.option("--until", metavar="TIME", help=say("只包含此前更新的会话", "changed before then")),
        click.option(
            "--since",
            metavar="TIME",
            help=say("只包含此后更新的会话，如 2026-11-01 或 7d", "changed since then: 2026-11-01, or 7d"),
        ),
        click.option(
            "--model",
            metavar="TEXT",
            default="",
            help=say("模型或模型家族的名称中含有的文字", "the model's or the family's name contains this"),
        ),
    ):
        function = option(function)
    return function


def chosen_filter(model: str, since: str | None, until: str | None, *, with_asks: bool) -> SessionFilter:
    """Return the filter of the flags. Raises UsageError for a time that cannot be parsed."""
    return SessionFilter(model, _moment("--since", since), _moment("--until", until), with_asks)


def _moment(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    if ago := _AGO.fullmatch(text.strip()):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            say(f"{flag} 的时间无法理解", f"{flag}: the time cannot be read"),
            say(
                "例如 2026-11-01、“2026-11-01 08:30”、12h、7d、2w",
                'for example 2026-11-01, "2026-11-01 08:30", 12h, 7d, 2w',
            ),
        ) from None
