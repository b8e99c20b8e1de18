"""What comes over a bare socket: requests as no client of OpenAI's sends them, halves of requests, silence."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from served_model import SECONDS, Served, question, serving

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model",)

BODY = json.dumps(question("头痛")).encode()
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Seconds that a connection of `impatient` may take for the head of a request.
SHORT = 0.25


def head(*lines: str, version: str = "1.1") -> bytes:
    """Return the head of a question with these lines in it."""
    first = f"POST /v1/chat/completions HTTP/{version}"
    named = [first, "Host: localhost", "Content-Type: application/json", *lines]
    return "\r\n".join([*named, "", ""]).encode("latin-1")


def connected(served: Served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def answer_to(served: Served, sent: bytes, *, until: bytes = b"") -> bytes:
    """Send bytes and return what comes, up to `until`; without it up to the end of the connection."""
    with connected(served) as connection:
        connection.sendall(sent)
        got = b""
        while not until or until not in got:
            piece = connection.recv(1 << 16)
            if not piece:
                break
            got += piece
    return got


ANSWERED = "你问的是头痛".encode()


@pytest.mark.parametrize(
    "sent",
    [
        head(CHUNKED) + IN_CHUNKS,
        head(LENGTH, LENGTH) + BODY,
        head(LENGTH, version="1.0") + BODY,
        head(LENGTH, "Expect: 200-maybe") + BODY,
        head(LENGTH, "Authorization: Bearer \xff", "X: " + "x" * 50_000) + BODY,
        head(LENGTH, *[f"X{number}: x" for number in range(1000)]) + BODY,
    ],
    ids=["chunks", "length twice", "1.0", "expectation", "long header", "many headers"],
)
def test_odd_but_whole_requests_are_answered(served: Served, sent: bytes) -> None:
    assert ANSWERED in answer_to(served, sent, until=ANSWERED)


@pytest.mark.parametrize(
    "sent",
    [
        head(LENGTH, CHUNKED) + IN_CHUNKS + MODELS,
        head(LENGTH, "Content-Length: 5") + BODY,
        head("Content-Length: -5") + BODY,
        head("Content-Length: +5") + BODY,
        head(CHUNKED) + b"no number\r\n" + BODY,
        head(LENGTH, "Host: evil.example") + BODY,
        head(LENGTH, "X : x") + BODY,
        b"\x16\x03\x01\x02\x00\x01" + bytes(100),
    ],
    ids=["two ends", "two lengths", "negative", "signed", "no chunk", "two hosts", "no name", "TLS"],
)
def test_a_request_whose_end_or_host_is_uncertain_ends_its_connection(served: Served, sent: bytes) -> None:
    answer = answer_to(served, sent)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
    served.wait_until_idle()
    assert served.post(question("头痛")).status_code == 200


def test_pipelined_questions_are_answered_in_their_order(served: Served) -> None:
    bodies = [json.dumps(question(text)).encode() for text in ("头痛", "发热", "咳嗽")]
    sent = b"".join(head(f"Content-Length: {len(body)}") + body for body in bodies)
    got = answer_to(served, sent, until="你问的是咳嗽".encode()).decode()
    assert got.index("你问的是头痛") < got.index("你问的是发热") < got.index("你问的是咳嗽")


def test_a_body_that_would_be_refused_is_not_asked_for(served: Served) -> None:
    expecting = "Expect: 100-continue"
    welcome = answer_to(served, head(LENGTH, expecting) + BODY, until=ANSWERED)
    assert welcome.startswith(b"HTTP/1.1 100 ") and ANSWERED in welcome
    for lines in (["Content-Length: 99999999"], [LENGTH, "Origin: https://evil.example"]):
        refused = answer_to(served, head(*lines, expecting), until=b"}}")
        assert refused.startswith(b"HTTP/1.1 4") and b"100 Continue" not in refused


def test_a_hundred_megabytes_are_refused_before_they_are_sent(served: Served) -> None:
    answer = answer_to(served, head(f"Content-Length: {100 << 20}"))
    assert answer.startswith(b"HTTP/1.1 413 ") and b"request_too_large" in answer


def test_half_a_request_is_no_question(served: Served) -> None:
    with connected(served) as connection:
        connection.sendall(head(LENGTH) + BODY[:9])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1 << 16) == b""
    assert "chatcmpl" not in served.logged(1)


# ---------------------------------------------------------------- connections that say nothing


@pytest.fixture(scope="module")
def impatient(scripted_model: OpenedModel) -> Iterator[Served]:
    with serving(scripted_model) as server:
        server.server.config.timeout_keep_alive = SHORT  # type: ignore[assignment]
        yield server


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/chat", MODELS + b"GET /v1"], ids=["silence", "half", "one and a half"]
)
def test_a_connection_without_a_whole_head_is_closed(impatient: Served, sent: bytes) -> None:
    assert answer_to(impatient, sent).count(b"HTTP/1.1 200 ") == sent.count(MODELS)


@pytest.mark.parametrize(
    "sent", [MODELS, head(LENGTH, "Origin: https://evil.example")], ids=["answered", "refused"]
)
def test_a_byte_now_and_then_keeps_no_connection(impatient: Served, sent: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(sent)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 ")
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < SECONDS:
                connection.sendall(b"X")
                time.sleep(SHORT / 5)
        assert time.monotonic() - began < SECONDS


def test_a_long_answer_is_not_cut_off_by_it(impatient: Served) -> None:
    with impatient.streaming(question("没完", max_tokens=round(300 * SHORT))) as stream:
        assert list(stream)[-1]["choices"][0]["finish_reason"] == "length"
