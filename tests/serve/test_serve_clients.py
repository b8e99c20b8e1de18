"""What clients send, as they send it: Open WebUI, LobeChat, NextChat, `llm` and `aichat` on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from served_model import Served, serving, texts_of

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model",)

SYSTEM = {"role": "system", "content": "你是一名医生助手。"}
ASKED = {"role": "user", "content": "头痛"}
#: A chat request of each client, with all that it sends besides.
REQUESTS: dict[str, dict[str, Any]] = {
    "Open WebUI": {
        "stream": True,
        "model": "served",
        "messages": [SYSTEM, ASKED],
        "stream_options": {"include_usage": True},
        "params": {},
        "features": {"image_generation": False, "code_interpreter": False, "web_search": False},
        "variables": {"{{USER_NAME}}": "User", "{{CURRENT_DATE}}": "2026-11-30"},
        "session_id": "s",
        "chat_id": "c",
        "id": "m",
        "background_tasks": {"title_generation": True, "tags_generation": True},
    },
    "LobeChat": {
        "model": "served",
        "stream": True,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "temperature": 1,
        "top_p": 1,
        "messages": [SYSTEM, {"role": "assistant", "content": "您好，有什么可以帮您？"}, ASKED],
        "tools": None,
    },
    "NextChat": {
        "messages": [SYSTEM, ASKED],
        "stream": True,
        "model": "served",
        "temperature": 0.5,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_p": 1,
    },
    "llm": {
        "messages": [ASKED],
        "model": "served",
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "aichat": {"model": "served", "messages": [ASKED], "stream": True},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "头痛"}]}], "stream": True},
}


@pytest.mark.parametrize("client", REQUESTS)
def test_a_request_is_answered_as_a_stream_and_what_was_not_used_is_listed(
    served: Served, client: str
) -> None:
    body = REQUESTS[client]
    response = served.post(body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "".join(texts_of(response.text)) == "你问的是头痛"
    lines = [line for line in response.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines), (
        "some clients read lines and know nothing of events"
    )
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line[6:]) for line in lines[:-1]]
    assert {event["id"] for event in events} == {events[0]["id"]}
    with_usage = "stream_options" in body
    assert ("usage" in events[-1]) is with_usage
    about = events[-2 if with_usage else -1]["medchat"]
    used = {"model", "messages", "stream", "stream_options", "temperature", "top_p"}
    unused = {name for name, value in body.items() if value is not None} - used
    assert {name for name in about.get("ignored", ()) if "[" not in name} == unused


def test_a_greeting_that_the_client_made_up_takes_no_part(served: Served) -> None:
    last = [line for line in served.post(REQUESTS["LobeChat"]).text.splitlines() if line][-2]
    assert "messages[1]" in json.loads(last[6:])["medchat"]["ignored"]


def test_texts_of_one_side_in_a_row_are_one_question(served: Served) -> None:
    body = {"messages": [ASKED, {"role": "user", "content": "还发烧"}]}
    assert served.post(body).json()["choices"][0]["message"]["content"] == "你问的是头痛\n还发烧"


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_has_a_status_and_json_whether_or_not_a_stream_was_asked_for(
    served: Served, stream: bool
) -> None:
    too_long = {"messages": [{"role": "user", "content": "长" * 5000}], "stream": stream}
    for body, status in ((too_long, 400), ({"messages": [ASKED], "model": "other", "stream": stream}, 404)):
        response = served.post(body)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.slow
def test_after_a_thousand_requests_the_memory_is_what_it_was(scripted_model: OpenedModel) -> None:
    import psutil

    process = psutil.Process()
    with serving(scripted_model) as served, served.client() as client:
        served.log = []

        def ask(times: int) -> None:
            for number in range(times):
                said = [ASKED, {"role": "assistant", "content": "多休息"}, ASKED]
                body = {"messages": said, "stream": number % 2 == 0}
                assert client.post("/v1/chat/completions", json=body).status_code == 200

        ask(200)
        before = process.memory_info().rss
        ask(1000)
        assert process.memory_info().rss < before * 1.05
