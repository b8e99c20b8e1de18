"""Bodies that are not in UTF-8: decoded where the server states their charset, else said, never shown as garbage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medchat_remote.body_text import ForeignEncodingError
from medchat_remote.payloads import read_payloads
from openai_server import OpenAIServer, Reply
from remote_models import ANSWER, Load, ask, failure, text_of

from medchat.api import Finish
from medchat.errors import MedchatError

pytest_plugins = ("remote_models",)

EVENTS = "text/event-stream"
PIECES = ("多喝水，", "多休息。")


def event(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]}, ensure_ascii=False)}\n\n"


def streamed(codec: str, kind: str = EVENTS, pieces: tuple[str, ...] = PIECES) -> Reply:
    body = "".join(map(event, pieces)) + "data: [DONE]\n\n"
    return Reply(raw=[body.encode(codec)], kind=kind)


def whole(codec: str, kind: str = "application/json") -> Reply:
    answer = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]}
    return Reply(raw=[json.dumps(answer, ensure_ascii=False).encode(codec)], kind=kind)


def payloads(body: bytes, content_type: str = "", size: int = 7) -> list[str]:
    async def read() -> list[str]:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), size):
                yield body[start : start + size]

        return [payload.text async for payload in read_payloads(pieces(), content_type)]

    return asyncio.run(read())


@pytest.mark.parametrize("charset", ["GBK", "gb2312", "GB18030", "big5"])
def test_a_stream_is_decoded_by_the_charset_that_it_states(
    server: OpenAIServer, load: Load, charset: str
) -> None:
    server.usual = streamed(charset, f"{EVENTS}; charset={charset}")
    deltas = ask(load())
    assert (text_of(deltas), deltas[-1].finish) == (ANSWER, Finish.STOP)


def test_an_answer_that_comes_whole_is_decoded_by_its_charset_too(server: OpenAIServer, load: Load) -> None:
    server.usual = whole("gbk", 'application/json; charset="gbk"')
    assert text_of(ask(load())) == ANSWER


@pytest.mark.parametrize("make", [streamed, whole])
@pytest.mark.parametrize(("codec", "name"), [("gbk", "GBK"), ("gb18030", "GBK"), ("utf-16", "UTF-16")])
def test_an_encoding_that_nothing_states_is_said_with_the_way_on_and_no_garbage_is_shown(
    server: OpenAIServer, load: Load, make: Callable[[str], Reply], codec: str, name: str
) -> None:
    server.usual = make(codec)
    shown, error = failure(load())
    assert shown == "" and name in error.what and "UTF-8" in error.remedy
    assert ("charset=GBK" in error.remedy) == (name == "GBK")


def test_a_stream_of_single_characters_is_recognised_soon(server: OpenAIServer, load: Load) -> None:
    server.usual = streamed("gbk", pieces=tuple("多喝水多休息"))
    shown, error = failure(load())
    assert "GBK" in error.what and len(shown) <= len("\ufffd\ufffd")


@pytest.mark.parametrize("charset", ["ISO-8859-1", "GBK", "utf8", "x-unknown", ""])
def test_utf8_is_read_as_that_whatever_charset_is_stated(
    server: OpenAIServer, load: Load, charset: str
) -> None:
    server.usual = streamed("utf-8", f"{EVENTS}; charset={charset}")
    assert text_of(ask(load())) == ANSWER


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=gbk"])
def test_a_refusal_in_another_encoding_is_readable(server: OpenAIServer, load: Load, kind: str) -> None:
    body = json.dumps({"error": {"message": "额度已用完，请充值"}}, ensure_ascii=False).encode("gbk")
    server.usual = Reply(status=403, raw=[body], kind=kind)
    assert "额度已用完，请充值" in failure(load())[1].what


def test_a_character_that_the_server_cut_in_two_does_not_make_the_rest_another_encoding() -> None:
    first, rest = "头".encode()[:1], "头".encode()[1:]
    cut = b"".join(b'data: {"text": "%s"}\n\n' % part for part in (first, rest, "痛多休息".encode()))
    texts = payloads(cut)
    assert texts[-1] == '{"text": "痛多休息"}' and "\ufffd" in texts[0]


@given(
    st.lists(st.text("头痛休息a1，。😀", min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 40)
)
def test_a_body_is_the_same_wherever_it_is_cut(texts: list[str], size: int) -> None:
    stream = "".join(map(event, texts))
    wanted = [block.removeprefix("data: ") for block in stream.split("\n\n") if block]
    assert payloads(stream.encode(), size=size) == wanted
    in_gbk = stream.encode("gb18030")
    assert payloads(in_gbk, "text/plain; charset=gb18030", size) == wanted
    with pytest.raises(ForeignEncodingError, match="GBK"):
        payloads(in_gbk + event("多喝水").encode("gb18030"), size=size)


def test_a_list_of_models_in_another_encoding_matters_only_where_no_model_is_named(
    server: OpenAIServer, load: Load
) -> None:
    server.models_reply = whole("gbk")
    assert text_of(ask(load(server.url + "#tiny"))) == ANSWER
    with pytest.raises(MedchatError, match="GBK"):
        load()
