"""What clients learn beside the answer: that what came was the model's reasoning, that old turns were left out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence

import pytest
from browser import Tab
from served_model import Ask, Served, question
from served_page import ask

from medchat.api import Delta, Finish, GenerationConfig, Segment
from medchat.plugin_kit import open_model

pytest_plugins = ("served_page",)

THOUGHT, ANSWER = "先想一想", "多休息"


@pytest.fixture
def reasoning(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Give the server with a model that says only at its end that it has been reasoning."""

    def stream(
        prompt: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        yield Delta(THOUGHT, 4, 1)
        yield Delta("", 5, 1, restarts=True)
        yield Delta(ANSWER, 8, 1)
        yield Delta("", 8, 1, finish=Finish.STOP)

    monkeypatch.setattr(served.opened.model, "stream", stream)
    return served


def test_a_whole_answer_has_its_reasoning_apart(reasoning: Served) -> None:
    message = reasoning.post(question("头痛")).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (ANSWER, THOUGHT)


def test_medchat_as_a_client_begins_the_answer_again(reasoning: Served) -> None:
    with open_model(backbone="remote", model=f"{reasoning.url}/v1#served") as opened:
        answer = opened.ask("头痛")
    assert (answer.text, answer.reasoning) == (ANSWER, THOUGHT)


def test_the_page_begins_the_answer_again(reasoning: Served, tab: Tab) -> None:
    ask(tab, "头痛")
    assert ANSWER in tab.text("article.answer") and THOUGHT not in tab.text("article.answer")


def long_talk(turns: int) -> Ask:
    """Return the body after so many turns of a thousand characters; four thousand fit the model's context."""
    said = [{"role": "user", "content": "头" * 500}, {"role": "assistant", "content": "痛" * 500}] * turns
    return {"messages": [*said, {"role": "user", "content": "还有呢？"}]}


@pytest.mark.parametrize(("turns", "dropped"), [(2, 0), (9, 6)])
def test_an_answer_says_how_many_turns_the_model_did_not_see(
    served: Served, turns: int, dropped: int
) -> None:
    body = long_talk(turns)
    whole = served.post(body).json()["medchat"]
    lines = served.post({**body, "stream": True}).text.splitlines()
    last = json.loads([line for line in lines if line][-2].removeprefix("data: "))["medchat"]
    assert whole.get("dropped_turns", 0) == last.get("dropped_turns", 0) == dropped


def test_the_page_says_how_many_turns_the_model_did_not_see(tab: Tab) -> None:
    for _ in range(3):
        tab.run(f"ask('{'头' * 900}')")
        tab.wait_for("!underWay")
    ask(tab, "还有呢？")
    assert "没有发给模型" in tab.text("article.answer:last-child")
    assert "没有发给模型" not in tab.text("article.answer")
