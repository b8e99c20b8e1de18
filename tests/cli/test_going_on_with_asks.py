"""A chat and the sessions that `ask` began: which one `-c` continues with, and what an `ask` is afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from cli_program import Scripted

pytest_plugins = ("cli_program",)


def listed(scripted: Scripted, *flags: str) -> list[tuple[str, str, int]]:
    """Return kind, first question and number of turns of each session listed."""
    found: list[dict[str, Any]] = scripted.run("sessions", "list", "--json", *flags).one()
    return [(record["kind"], record["first_question"], record["turns"]) for record in found]


def test_continue_goes_on_with_a_chat_though_an_ask_came_after_it(scripted: Scripted) -> None:
    scripted.run("chat", stdin="一\n")
    scripted.run("ask", "问答")
    scripted.run("chat", "-c", stdin="二\n")
    assert listed(scripted, "--all") == [("chat", "一", 2), ("ask", "问答", 1)]


def test_ask_goes_on_with_whatever_is_newest_and_both_stay_what_they_are(scripted: Scripted) -> None:
    scripted.run("ask", "问答")
    scripted.run("ask", "-c", "还有呢")
    assert listed(scripted, "--all") == [("ask", "问答", 2)]
    scripted.run("chat", stdin="一\n")
    scripted.run("ask", "-c", "二")
    assert listed(scripted, "--all") == [("chat", "一", 2), ("ask", "问答", 2)]


def test_where_there_are_asks_alone_continue_says_how_to_go_on_with_one(scripted: Scripted) -> None:
    scripted.run("ask", "问答")
    outcome = scripted.run("chat", "-c", stdin="一\n")
    assert outcome.code == 2 and "medchat sessions list --all" in outcome.failure()[1]
    assert listed(scripted, "--all") == [("ask", "问答", 1)]


@pytest.mark.parametrize("way", ["--resume", "/load"])
def test_an_ask_that_a_chat_goes_on_with_is_listed_as_a_chat(scripted: Scripted, way: str) -> None:
    scripted.run("ask", "问答")
    (record,) = scripted.run("sessions", "list", "--all", "--json").one()
    flags, lines = ([way, record["id"]], "") if way == "--resume" else ([], f"{way} {record['id']}\n")
    scripted.run("chat", *flags, stdin=lines)
    assert listed(scripted) == []  # looked at, not continued
    scripted.run("chat", *flags, stdin=f"{lines}还有呢\n")
    assert listed(scripted) == [("chat", "问答", 2)]
