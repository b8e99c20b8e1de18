"""Prompts counted and answers scored by the endpoint, where it can and is to be believed."""

from __future__ import annotations

import threading

import pytest
from medchat_remote.messages import MessagesTemplate
from openai_server import TEXT, OpenAIServer, Reply, refusal
from remote_models import PROMPT, Load, ask

from medchat.api import GenerationConfig, Text
from medchat.chat.session import ChatSession
from medchat.errors import UsageError

pytest_plugins = ("remote_models",)


def test_prompts_are_counted_by_the_endpoints_tokenizer_where_it_has_one(
    server: OpenAIServer, load: Load
) -> None:
    assert load().count(PROMPT) == 6 + 2 * 6  # a character a token, and what is around a message

    def tokenize(body: dict[str, object]) -> dict[str, object]:
        return {"count": 42 if "messages" in body else 3, "max_model_len": 1024, "tokens": []}

    server.calls["/tokenize"] = tokenize
    model = load()
    assert (model.count(PROMPT), model.context_length, model.describe()["exact_counts"]) == (42, 1024, True)
    assert model.count([Text("头痛")]) == 3
    server.usual = Reply(pieces=["水"])
    model.count(PROMPT)
    assert ask(model)[-1].prompt_tokens == 42
    del server.calls["/tokenize"]  # it stops answering: a guess will do
    assert model.count(PROMPT) == 18


def test_a_tokenizer_that_is_busy_is_not_waited_for(server: OpenAIServer, load: Load) -> None:
    server.calls["/tokenize"] = lambda body: refusal(503, "busy", retry_after="1")
    model = load()
    assert model.context_length == 2048 and not model.describe()["exact_counts"]
    assert [asked.path for asked in server.seen].count("/tokenize") == 1


def test_history_is_dropped_to_fit_what_the_endpoint_holds(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_CONTEXT", "100")
    session = ChatSession(load(), MessagesTemplate(), GenerationConfig(max_new_tokens=25))
    for number in range(8):
        list(session.ask(f"第{number}个问题？", threading.Event()))
    sent = server.questions[-1].body["messages"]
    assert 1 < len(sent) < 15 and sent[-1]["content"] == "第7个问题？"


def test_a_given_answer_is_scored_where_the_server_echoes(server: OpenAIServer, load: Load) -> None:
    segments = [Text("问：头痛？答：")]
    tokens = [("问：", None), ("头痛", -1.0), ("？答", -2.0), ("：多", -3.0), ("喝水", -4.0), ("。", -9.0)]
    offsets = [0, 2, 4, 6, 8, 10]

    def echo(body: dict[str, object]) -> dict[str, object]:
        assert body["prompt"] == "问：头痛？答：多喝水" and body["echo"] is True
        logprobs = {
            "tokens": [token for token, _ in tokens],
            "token_logprobs": [score for _, score in tokens],
            "text_offset": offsets,
        }
        return {"choices": [{"text": "…", "logprobs": logprobs}]}

    server.calls[TEXT] = echo
    assert load().score(segments, "多喝水") == (-3.0, -4.0)  # the token over the border is the answer's


@pytest.mark.parametrize("answer", [{"choices": [{"text": "x"}]},
                                    {"choices": [{"logprobs": {"tokens": ["水"], "token_logprobs": [-1.0],
                                                               "text_offset": [7]}}]}])  # fmt: skip
def test_a_server_that_scores_nothing_is_not_believed(
    server: OpenAIServer, load: Load, answer: dict[str, object]
) -> None:
    server.calls[TEXT] = lambda body: answer
    model = load()
    with pytest.raises(UsageError, match="概率"):
        model.score([Text("问：头痛？答：")], "多喝水")
    with pytest.raises(UsageError, match="对话接口"):
        model.score(PROMPT, "多喝水")
