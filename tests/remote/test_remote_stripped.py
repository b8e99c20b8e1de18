"""White space at the ends of a remote model's answer goes, however it is asked; its reasoning stays whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import Call
from hypothesis import given
from hypothesis import strategies as st
from medchat_remote.answer_stream import AnswerStream
from medchat_remote.chat_model import completion_of
from medchat_remote.chunks import StreamChunk
from openai_server import OpenAIServer, Reply
from remote_models import PROMPT, Load, ask, text_of

from medchat.api import Completion, Finish, GenerationConfig

pytest_plugins = ("cli_program", "remote_models")

PIECES = st.lists(st.text(st.sampled_from(" \n\t\u3000头痛,:a"), max_size=5), max_size=8)
SPACED, STRIPPED = ["\n\n ", "多喝水。\n", "\n多休息。", " \u3000", "\n"], "多喝水。\n\n多休息。"


def answered(pieces: list[str], finish: Finish | None = None, stops: tuple[str, ...] = ()) -> Completion:
    stream = AnswerStream(1, 1000, stops)
    return completion_of([*(stream.take(StreamChunk(text=piece)) for piece in pieces), stream.end(finish)])


def spaced() -> Reply:
    chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in SPACED]
    return Reply(raw=[f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"])


@given(PIECES)
def test_the_answer_is_what_its_pieces_hold_stripped(pieces: list[str]) -> None:
    # Numbered, so that no piece is treated as the answer sent again.
    marked = [f"{piece}{number}{piece}" for number, piece in enumerate(pieces)]
    assert answered(marked).text == "".join(marked).strip()


@pytest.mark.parametrize("finish", [Finish.CANCELLED, Finish.LENGTH, Finish.STOP])
def test_however_it_ends(finish: Finish) -> None:
    assert answered(SPACED, finish).text == STRIPPED


def test_white_space_before_a_stop_text_goes_too() -> None:
    assert answered(["\n多休息。\n", "\n问：", "还有呢"], stops=("问：",)).text == "多休息。"


@pytest.mark.parametrize("pieces", [["甲。\n", "乙</think>\n\n答 \n"], ["甲。\n乙", "</think>", " 答", "\n"]])
def test_reasoning_taken_for_the_answer_keeps_its_white_space(pieces: list[str]) -> None:
    found = answered(pieces)
    assert (found.reasoning, found.text) == ("甲。\n乙", "答")


def test_white_space_alone_is_no_answer() -> None:
    assert answered([" \n", "\u3000"]).text == ""


def test_a_stream_and_a_batch_give_the_same(server: OpenAIServer, load: Load) -> None:
    server.usual = spaced()
    model = load()
    completions = model.generate_batch([PROMPT, PROMPT], GenerationConfig())
    assert [completion.text for completion in completions] == [STRIPPED] * 2
    assert text_of(ask(model)) == STRIPPED


def test_commands_give_it_stripped(server: OpenAIServer, call: Call, tmp_path: Path) -> None:
    server.usual = spaced()
    flags = ("--backbone", "remote", "--model", server.url)
    assert call("ask", "头痛怎么办？", *flags).out == STRIPPED + "\n"
    assert call("ask", "头痛怎么办？", "--json", *flags).one()["answer"] == STRIPPED
    data, output = tmp_path / "data.jsonl", tmp_path / "answers.jsonl"
    data.write_text(json.dumps({"instruction": "头痛怎么办？", "output": ""}) + "\n", encoding="utf-8")
    outcome = call("infer", "--data", str(data), "--output", str(output), *flags)
    assert outcome.code == 0, outcome.err
    assert STRIPPED in json.loads(output.read_text(encoding="utf-8").splitlines()[0]).values()
