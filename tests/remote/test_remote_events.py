"""What comes back, read: events, the payloads in them, and what each says. No network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medchat_remote.chunks import MalformedPayloadError, StreamChunk, Usage, WholeCharacters, read_chunk
from medchat_remote.events import EventDecoder, ServerSentEvent
from medchat_remote.payloads import read_payloads
from medchat_remote.server_errors import FailureKind, ServerError, message_in

from medchat.api import Finish

LINE_ENDS = ("\n", "\r\n", "\r")
BOM = b"\xef\xbb\xbf"


def decoded(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = EventDecoder()
    return [*(event for chunk in chunks for event in decoder.feed(chunk)), *decoder.end()]


def pieces_of(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


# ---------------------------------------------------------------- events


@given(st.lists(st.text(max_size=20).filter(lambda text: not set("\r\n") & set(text))),
       st.sampled_from(LINE_ENDS), st.booleans(), st.booleans(), st.data())  # fmt: skip
def test_events_come_out_whole_wherever_the_bytes_are_cut(
    payloads: list[str], end: str, marked: bool, ended: bool, data: st.DataObject
) -> None:
    stream = (
        BOM * marked
        + "".join(
            f": ping{end}event: x{end}id: 7{end}data: {payload}{end}{end}" for payload in payloads
        ).encode()
    )
    if not ended:
        stream = stream.removesuffix(end.encode()).removesuffix(end.encode())
    events = decoded(*pieces_of(stream, data))
    assert events == [ServerSentEvent("x", (payload,)) for payload in payloads]


def test_one_mark_is_dropped_and_a_second_is_text() -> None:
    assert decoded(BOM + b"data: 1\n\n") == [ServerSentEvent("message", ("1",))]
    assert decoded(BOM * 2 + b"data: 1\n\n") == []  # a field of another name
    assert decoded(b"data: " + BOM + b"1\n\n") == [ServerSentEvent("message", ("\ufeff1",))]


def test_a_line_that_ends_in_a_lone_cr_is_whole_before_the_next_byte() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: 1\r\r") == [ServerSentEvent("message", ("1",))]
    assert decoder.feed(b"\ndata: 2\r\n") == []  # the LF belongs to the CR before it
    assert decoder.feed(b"\r") == [ServerSentEvent("message", ("2",))]
    assert decoder.end() == []


def test_lines_of_one_event_belong_together_and_names_do_not_last() -> None:
    assert decoded(b"event: a\ndata:x\ndata:  y\n\ndata: z\n\n") == [
        ServerSentEvent("a", ("x", " y")),
        ServerSentEvent("message", ("z",)),
    ]


@pytest.mark.parametrize(
    "nothing", [b"", b"\n\n\n", b": ping\n\n", b"event: ping\n\n", b"retry: 3\nid: 4\n\n", b"nonsense\n\n"]
)
def test_what_has_no_data_is_no_event(nothing: bytes) -> None:
    assert decoded(nothing) == []
    assert decoded(nothing + b"data: 1\n\n") == [ServerSentEvent("message", ("1",))]


# ---------------------------------------------------------------- payloads


def payloads_of(*chunks: bytes) -> list[tuple[str, str]]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collected() -> list[tuple[str, str]]:
        return [(payload.event, payload.text) async for payload in read_payloads(body())]

    return asyncio.run(collected())


OBJECT = {"choices": [{"delta": {"content": "多休息 。"}}]}
AS_JSON = json.dumps(OBJECT, ensure_ascii=False)
PRETTY = json.dumps(OBJECT, indent=1)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (f"data: {AS_JSON}\n\ndata: [DONE]\n\n", [AS_JSON, "[DONE]"]),
        (f"data: {AS_JSON}\ndata: {AS_JSON}\ndata: [DONE]\n", [AS_JSON, AS_JSON, "[DONE]"]),
        ("".join(f"data: {line}\n" for line in PRETTY.split("\n")) + "\n", [PRETTY]),
        (AS_JSON, [AS_JSON]),
        (f"\n {PRETTY}\n", [f"\n {PRETTY}\n"]),
        (f"{AS_JSON}\n{AS_JSON}\n", [AS_JSON, AS_JSON]),
        (f"\n\n: waiting\n\ndata: {AS_JSON}", [AS_JSON]),
        ("", []),
        (" \r\n", []),
    ],
)
@pytest.mark.parametrize("mark", [b"", BOM])
def test_the_body_decides_how_it_is_read(body: str, texts: list[str], mark: bytes) -> None:
    whole = mark + body.encode()
    expected = [("message", text) for text in texts]
    assert payloads_of(whole) == expected
    assert payloads_of(*(whole[place : place + 1] for place in range(len(whole)))) == expected


def test_a_web_page_is_no_answer() -> None:
    with pytest.raises(MalformedPayloadError, match="html"):
        payloads_of(b"\n<!doctype html><p>data: {}\n\n")


@pytest.mark.parametrize("name", ["ping", "heartbeat", "add"])
def test_an_event_of_another_name_counts_only_for_what_it_holds(name: str) -> None:
    async def read(data: str) -> list[StreamChunk | None]:
        async def body() -> AsyncIterator[bytes]:
            yield f"event: {name}\ndata: {data}\n\n".encode()

        return [payload.read() async for payload in read_payloads(body())]

    for foreign in ('{"type": "ping"}', "alive", "[]", "3", "{"):
        assert asyncio.run(read(foreign)) == [None]
    assert asyncio.run(read(AS_JSON)) == [StreamChunk("多休息 。")]
    with pytest.raises(ServerError, match="worker"):
        asyncio.run(read('{"error": {"message": "worker gone"}}'))


@pytest.mark.parametrize("data", ['{"message": "kv cache full"}', '{"error": "kv cache full"}', "kv cache full",
                                  '{"data": "kv cache full"}'])  # fmt: skip
def test_an_error_event_is_the_servers_failure(data: str) -> None:
    async def read() -> None:
        async def body() -> AsyncIterator[bytes]:
            yield f"event: error\ndata: {data}\n\n".encode()

        async for payload in read_payloads(body()):
            payload.read()

    with pytest.raises(ServerError, match="kv cache full"):
        asyncio.run(read())


# ---------------------------------------------------------------- chunks


@pytest.mark.parametrize(
    ("payload", "chunk"),
    [
        ({"choices": [{"delta": {"content": "水"}}]}, StreamChunk("水")),
        ({"choices": [{"text": "水", "finish_reason": "length"}]}, StreamChunk("水", Finish.LENGTH)),
        ({"choices": [{"message": {"content": "水"}, "finish_reason": "stop"}]}, StreamChunk("水", Finish.STOP)),
        ({"choices": [{"delta": {"content": [{"type": "text", "text": "水"}]}}]}, StreamChunk("水")),
        ({"choices": [{"delta": {"content": {"type": "text", "text": "水"}}}]}, StreamChunk("水")),
        ({"choices": [{"delta": {"content": ["多喝", "水"]}}]}, StreamChunk("多喝水")),
        ({"choices": [{"index": "1", "delta": {"content": "X"}}, {"index": "0", "delta": {"content": "水"}}]},
         StreamChunk("水")),
        ({"choices": [{"delta": {"content": None, "reasoning_content": "嗯"}}]}, StreamChunk(reasoning="嗯")),
        ({"choices": [{"delta": {"content": "水", "reasoning": "嗯"}}]}, StreamChunk("水", reasoning="嗯")),
        ({"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "嗯"}]},
                                             {"type": "text", "text": "水"}]}}]}, StreamChunk("水", reasoning="嗯")),
        ({"choices": [{"delta": {"content": "", "thinking": "嗯"}}]}, StreamChunk(reasoning="嗯")),
        ({"choices": [{"delta": {"content": "水", "reasoning_details": [{"type": "reasoning.text", "text": "嗯"}]}}]},
         StreamChunk("水", reasoning="嗯")),
        ({"code": 200, "msg": "success"}, None),
        ({"choices": [{"status": "finished", "message": {"content": "水"}}]}, StreamChunk("水")),
        ({"choices": [{"delta": {"content": None, "refusal": "不能回答"}}]}, StreamChunk("不能回答")),
        ({"choices": [{"index": 1, "delta": {"content": "X"}}, {"index": 0, "delta": {"content": "水"}}]},
         StreamChunk("水")),
        ({"choices": [{"index": 1, "delta": {"content": "X"}, "finish_reason": "stop"}]}, StreamChunk()),
        ({"choices": [{"delta": {"role": "assistant"}}]}, StreamChunk()),
        ({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}, StreamChunk(finish=Finish.STOP, wants_tool=True)),
        ({"choices": [{"delta": None, "finish_reason": ""}]}, StreamChunk()),
        ({"choices": None}, StreamChunk()),
        ({"choices": [], "prompt_filter_results": [{}]}, StreamChunk()),
        ({"type": "ping"}, None),
        ({}, None),
        ({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}, StreamChunk(usage=Usage(5, 3))),
        (
            {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}},
            StreamChunk(usage=Usage(5, 3, 4)),
        ),
        ({"choices": [{"delta": {}}], "usage": {"prompt_tokens": "5", "completion_tokens": -3}}, StreamChunk()),
    ],
)  # fmt: skip
def test_chunks_of_every_server_are_understood(payload: object, chunk: StreamChunk | None) -> None:
    assert read_chunk(json.dumps(payload)) == chunk


@pytest.mark.parametrize("payload", ["{", "[]", "3", '{"choices": 3}', '{"choices": [3]}', "[" * 100_000, "x" * 2000,
                                     '{"choices": [{"delta": "x"}]}', '{"choices": {"0": {}}}'])  # fmt: skip
def test_what_is_no_chunk_is_distinguished_from_one(payload: str) -> None:
    with pytest.raises(MalformedPayloadError):
        read_chunk(payload)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ('{"error": "boom"}', 0),
        ('{"error": {"message": "boom", "code": 503}}', 503),
        ('{"error": {"message": "boom", "code": "429"}}', 429),
        ('{"error": {"message": "boom", "code": "invalid_api_key"}}', 0),
        ('{"choices": [], "error": {"message": "boom", "code": 502}}', 502),
        ('{"choices": [{"index": 0, "error": {"message": "boom", "code": 502}}]}', 502),
        ('{"object": "error", "message": "boom", "code": 50001}', 0),
        ('{"code": "InvalidParameter", "message": "boom", "request_id": "1"}', 0),
        ('{"code": 1305, "msg": "boom", "success": false}', 0),
        ('{"error_code": 110, "error_msg": "boom"}', 0),
        ('{"status": 500, "message": "boom"}', 500),
        ('{"errors": [{"message": "boom"}]}', 0),
        ('{"detail": "boom"}', 0),
        ("boom", 0),
    ],
)
def test_a_servers_failure_inside_a_stream_is_no_answer(payload: str, code: int) -> None:
    with pytest.raises(ServerError, match="boom") as caught:
        read_chunk(payload)
    assert (caught.value.code, caught.value.kind) == (code, FailureKind.FAILED)


def test_an_answer_that_a_filter_ended_is_none() -> None:
    with pytest.raises(ServerError) as caught:
        read_chunk('{"choices": [{"delta": {}, "finish_reason": "content_filter"}]}')
    assert caught.value.kind is FailureKind.FILTERED


def test_a_refusal_names_the_field_and_not_what_it_held() -> None:
    detail = [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": "头痛怎么办"}]
    assert message_in(json.dumps({"detail": detail})) == "body.seed: Extra inputs are not permitted"
    openai = {"error": {"message": "Unsupported value.", "param": "temperature", "type": "invalid"}}
    assert message_in(json.dumps(openai)) == "temperature: Unsupported value."
    assert message_in("<html>") == "" and message_in(" busy ") == "busy" and message_in("[]") == ""


# ---------------------------------------------------------------- characters


@given(st.text())
def test_characters_cut_in_two_by_escapes_are_put_together(text: str) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    halves = [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]
    characters = WholeCharacters()
    got = "".join(map(characters.feed, halves)) + characters.finish()
    assert got == text
    got.encode("utf-8")


@given(st.lists(st.text(alphabet=st.characters(), max_size=5)))
def test_a_lone_half_never_reaches_the_answer(pieces: list[str]) -> None:
    characters = WholeCharacters()
    for piece in [*pieces, "\ud83d", "a", "\ude00", "\ud83d"]:
        characters.feed(piece).encode("utf-8")
    assert characters.finish() == "\ufffd"
