"""The summary of `infer`: how many answers there are, and which ones are incomplete or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medchat import medical_safety
from medchat.cli.output import say_aside
from medchat.errors import DataError
from medchat.language import say
from medchat.sanitize import sanitize_line

Rows = Sequence[Mapping[str, Any]]


def summarize(rows: Rows, output: str, speed: float, *, skip_bad: bool) -> int:
    """Print a row for each kind of result, and return the exit code. `speed` in tokens per second."""
    codes = Counter(int(row.get("error_code", 1)) for row in rows if row["finish"] == "error")
    answered, place = len(rows) - codes.total(), sanitize_line(output)
    say_aside(
        say(
            f"完成：{answered} 个回答在 {place}（{speed:.0f} 词元/秒）",
            f"done: {answered} answers in {place} ({speed:.0f} tokens/s)",
        )
    )
    for line in _remarks(rows):
        say_aside(line)
    say_aside(medical_safety.ai_mark())
    return _exit_code(codes, skip_bad=skip_bad)


def _remarks(rows: Rows) -> list[str]:
    lines = []
    if urgent := sum(any(notice["urgent"] for notice in row.get("safety", ())) for row in rows):
        lines.append(
            say(
                f"{urgent} 个问题可能涉及紧急情况，见结果中的 safety",
                f"{urgent} questions may concern an emergency: see `safety` in the results",
            )
        )
    without = Counter(name for row in rows for name in row.get("rejected_settings", ()))
    for name, count in without.items():
        lines.append(
            say(
                f"{count} 个回答没有用上 {name}：服务端不接受（见结果中的 rejected_settings）",
                f"{count} answers were made without {name}, which the server does not take"
                " (see `rejected_settings` in the results)",
            )
        )
    if count := sum(bool(row.get("reasoning_only")) for row in rows):
        lines.append(
            say(
                f"{count} 个问题只有思考，没有给出回答（结果中的 reasoning_only）；"
                "可调高 --max-new-tokens，或在服务端关闭思考",
                f"{count} questions got reasoning and no answer (`reasoning_only` in the results):"
                " raise --max-new-tokens, or turn reasoning off at the server",
            )
        )
    return lines


def _exit_code(codes: Counter[int], *, skip_bad: bool) -> int:
    if not codes:
        return 0
    say_aside(
        say(
            f"{codes.total()} 个问题没有回答（结果中 finish 为 error）；--resume 会再试一次",
            f"{codes.total()} questions have no answer (`finish` is error); --resume tries them again",
        )
    )
    failures = sorted(set(codes) - {DataError.exit_code})
    if failures:
        return failures[0]
    return 0 if skip_bad else DataError.exit_code
