"""The JSON values of a data file, each with the line it stands on.

Knows no record: an item is any JSON value. Reads arrays element by element, so that each has its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from medchat.language import say

_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON value. `problem` says why the line is none, and then `value` is None."""

    line: int
    value: Any = None
    problem: str = ""


class BrokenArray(ValueError):
    """The text is no JSON array; nothing after `line` can be told apart."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(say(f"{name} 不是 JSON 的数值", f"{name} is no JSON number"))


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return say(
            f"不是有效的 JSON（第 {error.colno} 列：{error.msg}）",
            f"not valid JSON (column {error.colno}: {error.msg})",
        )
    if isinstance(error, RecursionError):
        return say("JSON 嵌套过深", "JSON nested too deeply")
    return say(f"不是有效的 JSON（{error}）", f"not valid JSON ({error})")


def line_item(line: int, text: str) -> Item:
    """Return the value that one line of JSON lines holds."""
    try:
        return Item(line, json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        return Item(line, problem=_problem(error))


def array_items(text: str) -> Iterator[Item]:
    """Yield the elements of the JSON array `text`. Raises BrokenArray where it breaks off."""
    position, line, counted = _skip(text, 0), 1, 0
    position = _skip(text, position + 1)
    if text[position : position + 1] == "]":
        _expect_end(text, position + 1)
        return
    while True:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise BrokenArray(getattr(error, "lineno", line), _problem(error)) from None
        yield Item(line, value)
        position = _skip(text, position)
        if text[position : position + 1] == "]":
            _expect_end(text, position + 1)
            return
        if text[position : position + 1] != ",":
            raise _broken(text, position)
        position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _expect_end(text: str, position: int) -> None:
    if _skip(text, position) != len(text):
        raise _broken(text, _skip(text, position))


def _broken(text: str, position: int) -> BrokenArray:
    problem = (
        say("JSON 数组没有结束", "the JSON array does not end")
        if position >= len(text)
        else say("不是有效的 JSON 数组", "not a valid JSON array")
    )
    return BrokenArray(text.count("\n", 0, position) + 1, problem)
