"""What bounds a request whatever the server does: one deadline, one budget of bytes, nothing unpacked."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator

import pytest
from medchat_remote.limits import DOCUMENT_BYTES, Limits, answer_bytes, answer_characters
from medchat_remote.messages import MessagesTemplate
from openai_server import OpenAIServer, Reply, refusal
from remote_models import ANSWER, Load, ask, failure, text_of

from medchat.api import Finish, GenerationConfig
from medchat.errors import MedchatError, UsageError

pytest_plugins = ("remote_models",)

DEADLINE = "MEDCHAT_REMOTE_DEADLINE"


def event(text: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()


def dripping(piece: bytes) -> Iterator[bytes | float]:
    """Send `piece` ten times a second, without end: no silence is ever long."""
    while True:
        yield piece
        yield 0.1


# ---------------------------------------------------------------- the deadline


@pytest.mark.parametrize(
    ("piece", "said"),
    [(b": keep-alive\n\n", ""), (b"data: ", ""), (b" ", ""), (event("水"), "水")],
    ids=["comments", "no-line-end", "blanks", "words"],
)
def test_a_server_that_drips_for_ever_is_left_at_the_deadline(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch, piece: bytes, said: str
) -> None:
    monkeypatch.setenv(DEADLINE, "1")
    server.usual = Reply(raw=dripping(piece))
    model, started = load(), time.monotonic()
    came, error = failure(model)
    assert 0.9 < time.monotonic() - started < 3
    assert "1 秒" in error.what and DEADLINE in error.remedy
    assert set(came) == set(said) and len(server.questions) == 1


def test_retries_and_their_waits_count_towards_the_deadline(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEADLINE, "1")
    server.usual = refusal(503, "busy", retry_after="5")
    model, started = load(), time.monotonic()
    assert "503" in failure(model)[1].what
    assert time.monotonic() - started < 1 and len(server.questions) == 1


def test_a_refusal_that_drips_has_the_same_deadline(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEADLINE, "1")
    server.usual = Reply(status=400, kind="text/plain", raw=dripping(b"no "))
    model, started = load(), time.monotonic()
    failure(model)
    assert time.monotonic() - started < 3


def test_a_list_of_models_that_drips_has_it_too(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEADLINE, "1")
    server.models_reply = Reply(kind="application/json", raw=dripping(b" "))
    with pytest.raises(MedchatError, match="1 秒"):
        load()
    assert text_of(ask(load(server.url + "#m"))) == ANSWER


def test_a_question_of_a_batch_that_waits_for_its_turn_loses_no_time(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEADLINE, "1")
    server.usual = Reply(pieces=[0.4, "水"])
    prompts = [MessagesTemplate().render((), str(number)) for number in range(32 * 3)]
    completions = load().generate_batch(prompts, GenerationConfig())
    assert [completion.text for completion in completions] == ["水"] * len(prompts)


@pytest.mark.parametrize("value", ["soon", "0", "-5", "nan", "1e12"])
def test_a_deadline_that_cannot_be_is_refused_naming_the_variable(value: str) -> None:
    assert Limits.from_environment({DEADLINE: "7.5"}).deadline == 7.5
    with pytest.raises(UsageError, match=DEADLINE):
        Limits.from_environment({DEADLINE: value})


# ---------------------------------------------------------------- the budget


@pytest.mark.parametrize(
    "piece", [b"data: " + b"x" * 60_000, b": " + b"x" * 60_000 + b"\n", event(""), b"\n" * 60_000]
)
def test_an_answer_has_one_budget_of_bytes_whatever_it_is_made_of(
    server: OpenAIServer, load: Load, piece: bytes
) -> None:
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 << 20:
            yield piece
            sent += len(piece)

    server.usual = Reply(raw=flood())
    model = load()
    with pytest.raises(MedchatError) as caught:
        ask(model, GenerationConfig(max_new_tokens=8))
    assert "MiB" in caught.value.what and caught.value.remedy
    # Beyond the budget lies only what the sockets hold.
    assert sent < answer_bytes(8) + (16 << 20)


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
@pytest.mark.parametrize("pieces", [1, 100])
def test_an_answer_has_no_more_characters_than_its_tokens_can_have(
    server: OpenAIServer, load: Load, field: str, pieces: int
) -> None:
    chunk = json.dumps({"choices": [{"delta": {field: "水" * (100_000 // pieces)}}]})
    server.usual = Reply(raw=[f"data: {chunk}\n\n".encode()] * pieces, silent=True)
    deltas = ask(load(), GenerationConfig(max_new_tokens=8))
    assert deltas[-1].finish is Finish.LENGTH and server.client_gone.wait(2)
    assert sum(len(delta.text + delta.reasoning) for delta in deltas) == answer_characters(8)


def test_an_answer_that_came_whole_has_it_too(server: OpenAIServer, load: Load) -> None:
    body = json.dumps({"choices": [{"message": {"content": "水" * (1 << 20)}, "finish_reason": "stop"}]})
    server.usual = Reply(kind="application/json", body=body)
    with pytest.raises(MedchatError, match="MiB"):
        ask(load(), GenerationConfig(max_new_tokens=8))


def test_a_list_of_models_without_end_is_not_read_without_end(server: OpenAIServer, load: Load) -> None:
    server.models_reply = Reply(kind="application/json", raw=[b" " * (1 << 20)] * 64)
    with pytest.raises(MedchatError, match=f"{DOCUMENT_BYTES >> 20} MiB"):
        load()
    assert text_of(ask(load(server.url + "#m"))) == ANSWER


def test_headers_without_end_are_refused(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(headers={f"x-{number}": "x" * 1000 for number in range(500)})
    error = failure(load())[1]
    assert "OpenAI" in error.what
    server.usual = Reply()
    server.models_reply = Reply(headers={"x": "x" * 500_000})
    with pytest.raises(MedchatError):
        load()


def test_a_long_refusal_is_cut_and_still_read(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(status=400, kind="text/plain", body="no such setting " + "x" * (1 << 20))
    error = failure(load())[1]
    assert "no such setting" in error.what and len(error.what) < 300


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "deflate", "br", "zstd", "x-unknown"])
@pytest.mark.parametrize("status", [200, 400])
def test_what_is_compressed_is_never_unpacked(
    server: OpenAIServer, load: Load, encoding: str, status: int
) -> None:
    packed = b"\0" * (1 << 20)
    for layer in encoding.split(", "):
        packed = zlib.compress(packed) if layer == "deflate" else gzip.compress(packed)
    server.usual = Reply(status=status, headers={"Content-Encoding": encoding}, raw=[packed])
    error = failure(load())[1]
    assert (encoding.split(",")[0] in error.what) if status == 200 else "400" in error.what
    assert all(asked.headers["accept-encoding"] == "identity" for asked in server.seen)


def test_identity_is_no_encoding(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(headers={"Content-Encoding": "Identity"})
    assert text_of(ask(load())) == ANSWER


def test_a_compressed_list_of_models_is_a_note_where_the_model_is_named(
    server: OpenAIServer, load: Load
) -> None:
    server.models_reply = Reply(headers={"Content-Encoding": "gzip"}, raw=[gzip.compress(b"{}")])
    with pytest.raises(MedchatError, match="gzip"):
        load()
    assert text_of(ask(load(server.url + "#m"))) == ANSWER
