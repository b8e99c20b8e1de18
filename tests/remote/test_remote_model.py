"""The remote model against a server that streams, stalls and breaks off."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
from typing import Any

import pytest
from medchat_remote import connection
from medchat_remote.address import Endpoint
from medchat_remote.messages import MessagesTemplate
from openai_server import CHAT, TEXT, Asked, OpenAIServer, Reply, refusal
from remote_models import ANSWER, PROMPT, Load, ask, failure, text_of

from medchat.api import Delta, Finish, GenerationConfig, Text
from medchat.chat.events import AnswerFinished, AnswerPiece
from medchat.chat.session import ChatSession
from medchat.errors import MedchatError, UsageError
from medchat.templates import load_template

pytest_plugins = ("remote_models",)

WHOLE = json.dumps({"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]})

# ---------------------------------------------------------------- answers


def test_an_answer_streams_and_its_counts_are_the_servers(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(usage={"prompt_tokens": 11, "completion_tokens": 7})
    deltas = ask(load())
    assert [delta.text for delta in deltas if delta.text] == ["多喝水", "，", "多休息。"]
    last = deltas[-1]
    assert (last.finish, last.prompt_tokens, last.completion_tokens) == (Finish.STOP, 11, 7)
    assert not last.estimated and all(delta.finish is None for delta in deltas[:-1])
    (asked,) = server.questions
    assert (asked.path, asked.body["model"]) == (CHAT, "tiny")
    assert asked.body["messages"] == [{"role": "user", "content": "头痛怎么办？"}]


def chunk(text: str | None, finish: str | None = None, **more: object) -> str:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return "data: " + json.dumps({"choices": [choice], **more}, ensure_ascii=False)


def stream(
    *lines: str, between: str = "\n\n", before: bytes = b"", after: str = "\n\n", **more: Any
) -> Reply:
    """Return an answer that is framed as it is given, and whose end is marked by its length."""
    body = before + (between.join(lines) + after).encode()
    return Reply(raw=[body], headers={"Content-Length": str(len(body))}, **more)


FIRST, SECOND, STOP, DONE = chunk("多喝水，"), chunk("多休息。"), chunk(None, "stop"), "data: [DONE]"
NO_CHOICES = 'data: {"choices": []}', 'data: {"choices": null}'
PING, USAGE = 'event: ping\ndata: {"type": "ping"}', '{"choices": [], "usage": {"prompt_tokens": 5}}'
WAYS = {
    "no-done": Reply(done=False),
    "no-finish": Reply(finish=None),
    "crlf": Reply(line_end="\r\n"),
    "cr": Reply(line_end="\r"),
    "one-piece": Reply(pieces=[ANSWER]),
    "not-streamed": Reply(kind="application/json", body=WHOLE),
    "not-streamed-but-called-that": Reply(body=WHOLE),
    "streamed-but-called-json": Reply(kind="application/json", raw=[f"{chunk(ANSWER, 'stop')}\n\n".encode()]),
    "neither-done-nor-finish": stream(FIRST, SECOND),
    "no-empty-line-at-the-end": stream(FIRST, SECOND, STOP, after=""),
    "no-empty-lines": stream(FIRST, SECOND, STOP, DONE, between="\n", after="\n"),
    "byte-order-mark": stream(FIRST, SECOND, STOP, before=b"\xef\xbb\xbf"),
    "pings": stream(PING, FIRST, ": ping", PING, SECOND, STOP, DONE),
    "no-choices": stream(NO_CHOICES[0], FIRST, NO_CHOICES[1], SECOND, STOP, f"data: {USAGE}", DONE),
    "nothing-in-them": stream('data: {"choices": [{"delta": null}]}', 'data: {"id": 3}', FIRST, SECOND, STOP, DONE),
    "finish-is-empty": stream(chunk("多喝水，", ""), chunk("多休息。", ""), STOP, DONE),
    "every-chunk-is-the-end": stream(chunk("多喝水，", "stop"), chunk("多休息。", "stop"), DONE),
    "finish-of-its-own": stream(FIRST, SECOND, chunk("", "eos_token"), DONE),
    "all-of-it-again": stream(FIRST, chunk("多喝水，多休"), chunk(ANSWER), STOP, DONE),
    "json-lines": stream(*(line.removeprefix("data: ") for line in (FIRST, SECOND, STOP)), between="\n", after="\n"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_servers_way_of_answering_gives_the_same_answer(
    server: OpenAIServer, load: Load, way: str
) -> None:
    server.usual = WAYS[way]
    deltas = ask(load())
    assert text_of(deltas) == ANSWER and deltas[-1].finish is Finish.STOP
    assert deltas[-1].estimated and deltas[-1].completion_tokens >= 2
    assert len(server.questions) == 1


def test_what_follows_an_end_is_waited_for_as_long_as_it_goes_on(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "AFTERWARDS_SECONDS", 0.5)
    word = f"{chunk('水', 'stop')}\n\n".encode()
    server.usual = Reply(raw=[word, 0.3] * 4, silent=True)
    model, started = load(), time.monotonic()
    assert text_of(ask(model)) == "水" * 4
    assert time.monotonic() - started < 4 and server.client_gone.wait(2)


def test_the_first_piece_is_given_while_the_rest_is_still_to_come(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(pieces=["多喝水"], silent=True)
    stream = load().stream(PROMPT, GenerationConfig(), threading.Event())
    texts = (delta.text for delta in stream)
    assert next(text for text in texts if text) == "多喝水"
    assert server.silent.wait(5)
    stream.close()  # type: ignore[attr-defined]


def test_bytes_that_no_utf8_or_utf16_allows_come_out_as_replacements(
    server: OpenAIServer, load: Load
) -> None:
    halves = [b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
              b'data: {"choices":[{"delta":{"content":"\\ude00\\ud83d"}}]}\n\n',
              b'data: {"choices":[{"delta":{"content":"\xff!"}, "finish_reason":"stop"}]}\n\n']  # fmt: skip
    server.usual = Reply(raw=halves)
    text = text_of(ask(load()))
    assert text == "😀\ufffd\ufffd!"
    text.encode("utf-8")


def test_half_a_character_that_a_server_cut_off_is_left_out(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(raw=[chunk("头痛\ufffd", "length").encode(), b"\n\n"])
    model = load()
    assert text_of(ask(model)) == "头痛"
    (completion,) = model.generate_batch([PROMPT], GenerationConfig())
    assert completion.text == "头痛"


def test_reasoning_is_no_part_of_the_answer(server: OpenAIServer, load: Load) -> None:
    thought = json.dumps({"choices": [{"delta": {"reasoning_content": "嗯，用户头痛"}}]})
    said = json.dumps({"choices": [{"delta": {"content": "多喝水"}, "finish_reason": "stop"}]})
    server.usual = Reply(raw=[f"data: {thought}\n\ndata: {said}\n\n".encode()])
    assert text_of(ask(load())) == "多喝水"


def test_a_named_template_goes_to_the_text_call_as_it_stands(server: OpenAIServer, load: Load) -> None:
    segments = load_template("med_template").render((), "头痛怎么办？")
    assert text_of(ask(load(), prompt=segments)) == ANSWER
    (asked,) = server.questions
    expected = "".join(segment.text for segment in segments if isinstance(segment, Text))
    assert (asked.path, asked.body["prompt"]) == (TEXT, expected)


def test_the_server_may_know_other_names_for_a_setting(server: OpenAIServer, load: Load) -> None:
    server.script += [
        refusal(400, "Unrecognized request argument supplied: stream_options"),
        refusal(400, "'max_tokens' is not supported, use 'max_completion_tokens' instead"),
    ]
    model = load()
    assert text_of(ask(model)) == ANSWER
    assert text_of(ask(model)) == ANSWER  # known by now
    bodies = [asked.body for asked in server.questions]
    assert ["stream_options" in body for body in bodies] == [True, False, False, False]
    assert ["max_completion_tokens" in body for body in bodies] == [False, False, True, True]


# ---------------------------------------------------------------- cancelling


@pytest.mark.parametrize("said", [[], ["多喝水"]], ids=["before-the-first-word", "in-the-middle"])
def test_cancelling_closes_the_connection_at_once(server: OpenAIServer, load: Load, said: list[str]) -> None:
    server.usual = Reply(pieces=said, silent=True)
    cancel, text, last = threading.Event(), "", Delta()

    def stop() -> None:
        server.silent.wait(10)
        while text != "".join(said):
            time.sleep(0.01)
        cancel.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    for last in load().stream(PROMPT, GenerationConfig(), cancel):
        text += last.text
    assert server.client_gone.wait(2), "the server is still computing"
    stopper.join()
    assert text == "".join(said) and last.finish is Finish.CANCELLED


def test_a_reader_who_stops_listening_lets_the_connection_go(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(silent=True)
    stream = load().stream(PROMPT, GenerationConfig(), threading.Event())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert server.client_gone.wait(2)


def test_a_stop_text_lets_the_connection_go(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(pieces=["多喝水", "\n### 问题"], silent=True)
    deltas = ask(load(), GenerationConfig(stop=("\n###",)))
    assert text_of(deltas) == "多喝水" and deltas[-1].finish is Finish.STOP
    assert server.client_gone.wait(2)


def test_cancelled_before_it_began_nothing_is_sent(server: OpenAIServer, load: Load) -> None:
    cancel = threading.Event()
    cancel.set()
    (delta,) = load().stream(PROMPT, GenerationConfig(), cancel)
    assert delta.finish is Finish.CANCELLED and not server.questions


# ---------------------------------------------------------------- trying again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_or_failing_server_is_asked_again(server: OpenAIServer, load: Load, status: int) -> None:
    server.script += [refusal(status, "busy")] * 3
    assert text_of(ask(load())) == ANSWER
    assert len(server.questions) == 4


@pytest.mark.parametrize("reply", [Reply(pieces=(), cut=True), Reply(pieces=(), reset=True)])
def test_a_connection_lost_before_the_first_word_is_made_again(
    server: OpenAIServer, load: Load, reply: Reply
) -> None:
    server.script.append(reply)
    assert text_of(ask(load())) == ANSWER
    assert len(server.questions) == 2


def test_it_gives_up_in_the_end_and_says_what_the_server_said(server: OpenAIServer, load: Load) -> None:
    server.usual = refusal(503, "the \x1b[31mmodel is overloaded")
    said, error = failure(load())
    assert (said, len(server.questions)) == ("", 4)
    assert "503" in error.what and "model is overloaded" in error.what and "\x1b" not in error.what
    assert type(error) is MedchatError and error.where in server.url


def test_a_servers_own_wait_is_kept_and_a_long_one_told(server: OpenAIServer, load: Load) -> None:
    server.script.append(refusal(429, "slow down", retry_after="1"))
    started = time.monotonic()
    assert text_of(ask(load())) == ANSWER
    assert time.monotonic() - started >= 1.0
    server.usual = refusal(429, "quota", retry_after="3600")
    model, asked = load(), len(server.questions)
    error = failure(model)[1]
    assert "3600" in error.remedy and len(server.questions) == asked + 1


FIRST_WORD = f"data: {json.dumps({'choices': [{'delta': {'content': '多喝'}}]})}\n\n".encode()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(pieces=["多喝"], cut=True),
        Reply(pieces=["多喝"], reset=True),
        Reply(pieces=["多喝"], finish="abort"),
        Reply(raw=[FIRST_WORD, b'data: {"error": "CUDA error"}\n\n']),
        Reply(raw=[FIRST_WORD, b"data: {nonsense}\n\n"]),
    ],
    ids=["cut", "reset", "abort", "error", "nonsense"],
)
def test_after_the_first_word_nothing_is_asked_twice_and_the_part_is_kept(
    server: OpenAIServer, load: Load, reply: Reply
) -> None:
    server.usual = reply
    session = ChatSession(load(), MessagesTemplate(), GenerationConfig())
    got = []
    with pytest.raises(MedchatError) as caught:
        got += session.ask("头痛怎么办？", threading.Event())
    assert caught.value.remedy and len(server.questions) == 1
    (turn,) = session.conversation.turns
    assert (turn.answer, turn.finish) == ("多喝", Finish.ERROR)


def test_the_conversation_goes_on_after_a_failure_and_sends_what_was_said(
    server: OpenAIServer, load: Load
) -> None:
    server.script += [Reply(pieces=["多喝"], cut=True), Reply(pieces=["水。"])]
    session = ChatSession(load(), MessagesTemplate(), GenerationConfig())
    with pytest.raises(MedchatError):
        list(session.ask("头痛怎么办？", threading.Event()))
    events = list(session.ask("还有呢？", threading.Event()))
    assert [event.text for event in events if isinstance(event, AnswerPiece)] == ["水。"]
    assert isinstance(events[-1], AnswerFinished)
    roles = [(message["role"], message["content"]) for message in server.questions[-1].body["messages"]]
    assert roles == [("user", "头痛怎么办？"), ("assistant", "多喝"), ("user", "还有呢？")]


# ---------------------------------------------------------------- batches


def test_a_batch_is_under_way_together_and_comes_back_in_order(server: OpenAIServer, load: Load) -> None:
    def echo(asked: Asked) -> Reply:
        return Reply(pieces=[0.2, "答" + asked.body["messages"][-1]["content"]])

    server.reply_to = echo
    questions = [f"第{number}问" for number in range(6)]
    prompts = [MessagesTemplate().render((), question) for question in questions]
    completions = load().generate_batch(prompts, GenerationConfig())
    assert [completion.text for completion in completions] == [f"答{question}" for question in questions]
    assert server.most_under_way >= 3
    assert all(completion.finish is Finish.STOP and completion.estimated for completion in completions)


def test_a_failure_in_a_batch_ends_the_others(server: OpenAIServer, load: Load) -> None:
    server.script += [Reply(pieces=["水"], silent=True), refusal(400, "no")]
    prompts = [MessagesTemplate().render((), question) for question in "一二"]
    with pytest.raises(UsageError):
        load().generate_batch(prompts, GenerationConfig())
    assert server.client_gone.wait(2)


def test_a_closed_model_leaves_no_thread_behind(load: Load) -> None:
    def ours() -> list[threading.Thread]:
        # The test's own server has threads too, and they end when they will.
        return [thread for thread in threading.enumerate() if thread.name == "medchat-remote"]

    before = len(ours())
    model = load()
    assert len(ours()) == before + 1
    model.close()
    model.close()
    assert len(ours()) == before


@pytest.mark.parametrize("way", ["no-done", "cr", "not-streamed", "every-chunk-is-the-end"])
def test_nothing_is_left_pending_when_the_model_is_closed(
    server: OpenAIServer, load: Load, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    for reply in (WAYS[way], Reply(pieces=["水"], silent=True), refusal(400, "no")) * 3:
        server.usual = reply
        model = load()
        with contextlib.suppress(UsageError):
            for delta in model.stream(PROMPT, GenerationConfig(), threading.Event()):
                if reply.silent and delta.text:
                    break
        model.close()
    del model
    gc.collect()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def test_addresses_that_differ_only_in_writing_are_one(server: OpenAIServer) -> None:
    assert Endpoint.parse(server.url + "/chat/completions") == Endpoint.parse(server.url)
