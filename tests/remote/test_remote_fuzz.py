"""Whatever a server sends, an answer comes of it or one of the documented errors, and nothing else."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_remote.answer_stream import AnswerStream
from medchat_remote.chunks import MalformedPayloadError
from medchat_remote.loading import load_remote_model
from medchat_remote.payloads import read_payloads
from medchat_remote.server_errors import ServerError, message_in
from openai_server import Reply, serving
from remote_models import PROMPT, QUICK

from medchat.api import GenerationConfig, LoadOptions
from medchat.errors import MedchatError

NAMES = ("choices", "delta", "message", "content", "text", "type", "index", "finish_reason", "usage", "error", "code",
         "reasoning_content", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "detail",
         "loc", "msg", "param", "status", "thinking", "refusal", "object", "data", "id", "models", "max_model_len",
         "count", "meta")  # fmt: skip
WORDS = (
    "stop",
    "length",
    "content_filter",
    "tool_calls",
    "<think>",
    "</think>",
    "水",
    "\ud83d",
    "\x1b[2J",
    "503",
    "",
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=8),
    st.just(10**400), st.just(-1),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), max_size=2)}
)
PIECES = st.one_of(
    st.builds(lambda value: f"data: {json.dumps(value)}\n\n".encode(), CHUNK | VALUES),
    st.builds(lambda value: json.dumps(value).encode(), CHUNK | VALUES),
    st.builds(lambda name: f"event: {name}\n".encode(), st.sampled_from(("error", "ping", "message", ""))),
    st.sampled_from(
        (b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"data: [DONE]\n\n", b"<html>", b": x\n", b"data:", b"{")
    ),
    st.binary(max_size=12),
)


def answer_of(pieces: list[bytes]) -> str:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            if piece:
                yield piece

    async def read() -> str:
        answer = AnswerStream(1, 8, ("停",), key="sk-geheim-123")
        text = ""
        async for payload in read_payloads(body()):
            chunk = payload.read()
            if chunk is not None and not answer.ended:
                delta = answer.take(chunk)
                text = delta.text if delta.restarts else text + delta.text
        return text + answer.end().text

    return asyncio.run(read())


def check(pieces: list[bytes]) -> None:
    try:
        text = answer_of(pieces)
    except (MalformedPayloadError, ServerError):
        return
    text.encode("utf-8")


@given(st.lists(PIECES, max_size=8))
def test_any_body_is_an_answer_or_a_documented_error(pieces: list[bytes]) -> None:
    check(pieces)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000)
@given(st.lists(PIECES, max_size=8))
def test_any_of_ten_thousand_bodies_is(pieces: list[bytes]) -> None:
    check(pieces)


@given(VALUES | CHUNK)
def test_any_refusal_has_one_sentence_or_none(value: Any) -> None:
    assert isinstance(message_in(json.dumps(value)), str)


@settings(max_examples=12)
@given(listed=VALUES, counted=VALUES, data=st.lists(PIECES, max_size=4))
def test_an_endpoint_may_answer_anything_anywhere(listed: Any, counted: Any, data: list[bytes]) -> None:
    with serving() as server:
        server.models = listed
        server.calls["/tokenize"] = lambda body: counted
        server.usual = Reply(raw=data)
        for address in (server.url, server.url + "#m"):
            try:
                model = load_remote_model(LoadOptions(Path(address), address=address), QUICK)
            except MedchatError as error:
                assert error.what and error.remedy
                continue
            try:
                list(model.stream(PROMPT, GenerationConfig(max_new_tokens=8), threading.Event()))
            except MedchatError as error:
                assert error.what and error.remedy
            finally:
                model.close()
