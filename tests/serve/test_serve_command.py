"""`medchat serve` as a program: what it says, what it refuses before it loads anything, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from cli_program import FULL_ZH, START_ZH, Call, Scripted
from medchat_serve.limits import ServerLimits
from served_model import SECONDS, question, serving, texts_of

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model",)

#: An answer of so many words takes three seconds: long enough for requests in between on a busy machine.
WORDS = 300
ADDRESS = re.compile(r"http://[\d.]+:\d+(?=/)")


@contextmanager
def started(scripted: Scripted, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], str, list[str]]]:
    """Start the program and give it, its address and what it says on stderr, as soon as it is ready."""
    process = scripted.start("serve", "--port", "0", *flags)
    said: list[str] = []
    try:
        assert process.stderr is not None
        while (address := ADDRESS.search("".join(said))) is None:
            said.append(process.stderr.readline().decode())
            assert said[-1], said
        reader = threading.Thread(target=lambda: said.extend(line.decode() for line in process.stderr or ()))
        reader.start()
        yield process, address[0], said
        reader.join(SECONDS)
    finally:
        process.kill()
        process.wait()


def post(url: str, body: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=SECONDS, trust_env=False)


def test_it_says_the_disclaimer_and_its_address_answers_and_ends_with_the_signals_code(
    scripted: Scripted,
) -> None:
    with started(scripted) as (process, url, said):
        listed = httpx2.get(f"{url}/v1/models", timeout=SECONDS, trust_env=False).json()
        assert listed["data"][0]["id"] == "脚本模型", "the folder's name, never its path"
        answer = post(url, {"messages": [{"role": "user", "content": "头痛"}]})
        assert answer.json()["choices"][0]["message"]["content"] == "你问的是头痛"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 143
        assert process.stdout is not None and process.stdout.read() == b""
    text = "".join(said)
    assert FULL_ZH in text and START_ZH in text and "Ctrl-C" in text
    assert "头痛" not in text and "out=6" in text and "Traceback" not in text


def test_what_is_wrong_is_said_before_anything_is_loaded(
    call: Call, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(scripted.site))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flags, words in (
            (("--host", "0.0.0.0"), "MEDCHAT_SERVE_TOKEN"),
            (("--port", port), "--port 0"),
            (("--host", "no.such.host.invalid", "--port", "0"), "MEDCHAT_SERVE_TOKEN"),
            (("--origin", "*"), "--origin http://localhost:3000"),
            (("--origin", "http://localhost:3000/path"), "--origin http://localhost:3000"),
            (("--token-file", "/no/such/file"), "--token-file"),
        ):
            outcome = call("serve", *flags, *scripted.flags)
            assert outcome.code == 2 and words in outcome.failure()[1], outcome.err
            assert START_ZH not in outcome.err


@pytest.mark.slow
def test_other_machines_may_ask_with_a_token_and_it_is_said_what_that_means(scripted: Scripted) -> None:
    token = scripted.model.parent / "token"
    token.write_text("a-token-of-the-tests", encoding="utf-8")
    token.chmod(0o600)
    with started(scripted, "--host", "0.0.0.0", "--token-file", str(token)) as (process, url, said):
        local = url.replace("0.0.0.0", "127.0.0.1")
        assert post(local, {"messages": []}).status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    assert "没有加密" in "".join(said) and "a-token" not in "".join(said)


# ---------------------------------------------------------------- the end


def test_who_stops_the_server_lets_the_answer_under_way_end_and_new_ones_are_refused(
    scripted_model: OpenedModel,
) -> None:
    with serving(scripted_model) as served:
        with served.streaming(question("没完", max_tokens=WORDS)) as stream:
            pieces = [next(stream)]
            served.server.ask_to_stop()
            refused = served.post(question("头痛"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
            with served.client() as client:
                assert client.get("/health").json()["status"] == "stopping"
            pieces += list(stream)
        assert pieces[-1]["choices"][0]["finish_reason"] == "length"
        said = [piece["choices"][0]["delta"].get("content", "") for piece in pieces]
        assert "".join(said) == "水" * WORDS


@pytest.mark.parametrize("twice", [True, False], ids=["asked twice", "out of time"])
def test_an_answer_without_end_ends_with_what_has_come(scripted_model: OpenedModel, twice: bool) -> None:
    limits = ServerLimits(stop_seconds=30.0 if twice else 0.2)
    with serving(scripted_model, limits=limits) as served:
        queued = question("头痛", medchat={"queue": True})
        with served.streaming(question("没完")) as stream, served.streaming(queued) as waiting:
            first, place = next(stream), next(waiting)
            assert place["medchat"] == {"queue": 1}
            served.server.ask_to_stop()
            if twice:
                served.server.ask_to_stop()
            rest = list(stream)
            assert [event["error"]["code"] for event in waiting] == ["stopping"]
        assert first["choices"][0]["delta"]["content"] == "水"
        assert rest[-1]["choices"][0]["finish_reason"] == "length"


def test_after_the_end_nobody_listens(scripted_model: OpenedModel) -> None:
    with serving(scripted_model) as served:
        assert texts_of(served.post(question("头痛", stream=True)).text)
    with pytest.raises(httpx2.ConnectError):
        served.post(question("头痛"))


def test_no_thread_of_the_server_is_left(scripted_model: OpenedModel) -> None:
    def answering() -> int:
        return sum(thread.name == "answer" for thread in threading.enumerate())

    before = answering()
    with serving(scripted_model):
        assert answering() == before + 1
    assert answering() == before
