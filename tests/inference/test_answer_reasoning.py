"""Reasoning of models that run here: taken out of the answer as it streams, whatever the tokens and the tag."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from medchat.api import Control, Delta, Finish, Segment, Text
from medchat.inference.answer_deltas import DecodeStep, EncodedPrompt, completion_of, stream_deltas
from medchat.inference.detokenizer import StreamText
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.reasoning import reasoning_behind

PLAIN: Sequence[Segment] = (Control("<user>"), Text("头痛"), Control("<bot>"))


def deltas_of(
    text: str,
    prompt: Sequence[Segment] = PLAIN,
    finish: Finish = Finish.STOP,
    stops: Sequence[str] = (),
) -> list[Delta]:
    """Return the deltas of an answer whose tokens are bytes."""
    steps = [*(DecodeStep(token=byte) for byte in text.encode()), DecodeStep(finish=finish)]
    decoder = StreamText(lambda ids: bytes(ids).decode("utf-8", "replace"))
    cleanup, splitter = StrippedAnswer(), reasoning_behind(prompt)
    return list(
        stream_deltas(steps, EncodedPrompt(3), decoder, stops=stops, cleanup=cleanup, reasoning=splitter)
    )


@pytest.mark.parametrize(
    "text",
    [
        "<think>想一想。</think>\n\n多休息。",
        "<THINK>\n想一想。</THINK>多休息。",
        "[THINK]想一想。[/THINK] 多休息。",
        "\n<thinking>想一想。</thinking>\n多休息。\n",
    ],
)
def test_reasoning_stands_apart_and_is_not_in_the_answer(text: str) -> None:
    whole = completion_of(deltas_of(text))
    assert (whole.text, whole.reasoning.strip(), whole.finish) == ("多休息。", "想一想。", Finish.STOP)
    assert whole.completion_tokens == len(text.encode())


def test_it_is_shown_as_it_comes() -> None:
    pieces = [delta.reasoning for delta in deltas_of("<think>一二三</think>好")]
    assert [piece for piece in pieces if piece] == ["一", "二", "三"]


@pytest.mark.parametrize("opened", [Text("<bot><think>\n"), Control("<think>")])
def test_a_prompt_that_opens_the_reasoning_begins_the_answer_inside(opened: Segment) -> None:
    deltas = deltas_of("想一想。</think>多休息。", (*PLAIN, opened))
    assert not any(delta.restarts for delta in deltas)
    assert (completion_of(deltas).text, completion_of(deltas).reasoning) == ("多休息。", "想一想。")


def test_a_closing_tag_alone_makes_what_came_before_reasoning() -> None:
    deltas = deltas_of("想一想。 </think>多休息。")
    assert sum(delta.restarts for delta in deltas) == 1
    assert (completion_of(deltas).text, completion_of(deltas).reasoning) == ("多休息。", "想一想。")


def test_reasoning_that_was_cut_off_is_no_answer() -> None:
    whole = completion_of(deltas_of("<think>想了很久", finish=Finish.LENGTH))
    assert (whole.text, whole.reasoning) == ("", "想了很久")


def test_a_stop_text_counts_in_the_answer_alone() -> None:
    whole = completion_of(deltas_of("<think>甲。乙</think>一。二。三", stops=("。",)))
    assert (whole.text, whole.reasoning, whole.finish) == ("一", "甲。乙", Finish.STOP)


@pytest.mark.parametrize("text", ["1 < 2", "<thin", "a <b> c", "请看 [1]"])
def test_what_only_looks_like_a_tag_stays_in_the_answer(text: str) -> None:
    whole = completion_of(deltas_of(text))
    assert (whole.text, whole.reasoning) == (text, "")
