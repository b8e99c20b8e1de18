"""openai-python and plain HTTP against a served model: models, answers whole and as a stream, counts, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from medchat_serve.guard import Guard
from served_model import SECONDS, Served, question, serving

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model",)

MESSAGES = [{"role": "user", "content": "头痛"}]
TOKEN = "a-token-of-the-tests"


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


def client_of(served: Served, key: str = "unused", prefix: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url + prefix, api_key=key, timeout=SECONDS, max_retries=0)


def test_openai_python_lists_the_model_and_gets_the_answer_that_ask_gives(
    served: Served, client: openai.OpenAI
) -> None:
    assert [model.id for model in client.models.list()] == ["served"]
    assert client.models.retrieve("served").owned_by == "medchat"
    answer = client.chat.completions.create(model="served", messages=MESSAGES)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == served.opened.ask("头痛").text == "你问的是头痛"
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("stop", 6)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6


def test_a_stream_comes_in_pieces_with_its_counts_last(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="served",
            messages=MESSAGES,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == "你问的是头痛" and len(pieces) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert not chunks[-1].choices and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6


def test_a_text_completion_goes_on_with_the_text_and_no_template(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="served", prompt="发烧", max_tokens=4)
    assert completion.choices[0].text == "你问的是"
    assert (completion.choices[0].finish_reason, completion.usage.prompt_tokens) == ("length", 2)  # type: ignore[union-attr]


def test_what_is_wrong_comes_as_openai_pythons_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)  # type: ignore[call-overload]
    assert unknown.value.code == "model_not_found" and "served" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="served", messages=MESSAGES, temperature=9)  # type: ignore[call-overload]
    assert "(0, 2]" in wrong.value.message
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="served", input="头痛")


def test_a_failure_of_the_model_is_an_error_before_its_first_word_and_an_event_after_it(
    served: Served, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(
            model="served",
            messages=[{"role": "user", "content": "坏掉"}],
        )
    stream = client.chat.completions.create(
        model="served", messages=[{"role": "user", "content": "坏掉"}], stream=True
    )
    assert next(stream).choices[0].delta.content == "多喝"
    with pytest.raises(openai.APIError):
        next(stream)


def test_a_wrong_token_is_openai_pythons_authentication_error(scripted_model: OpenedModel) -> None:
    with serving(scripted_model, guard=Guard(token=TOKEN)) as served:
        for key in ("wrong", TOKEN + "x", TOKEN[:-1]):
            with pytest.raises(openai.AuthenticationError), client_of(served, key) as client:
                client.models.list()
        with client_of(served, TOKEN) as client:
            assert client.chat.completions.create(model="served", messages=MESSAGES).id  # type: ignore[call-overload]
        with served.client() as plain:
            assert plain.get("/health").json()["status"] == "ok"
            assert plain.get("/v1/models").status_code == 401


def test_a_base_address_without_v1_works_too(served: Served) -> None:
    with client_of(served, prefix="") as client:
        assert client.models.list().data[0].id == "served"
        assert client.chat.completions.create(model="served", messages=MESSAGES).choices  # type: ignore[call-overload]


def test_every_answer_states_disclaimer_label_and_the_fields_that_were_not_used(served: Served) -> None:
    answer = served.post(
        question("头痛", tools=[], model=None, presence_penalty=0.5, adapter="/etc", user="甲")
    )
    about = answer.json()["medchat"]
    assert about["disclaimer"] == served.opened.mark
    assert (about["notices"], about["aigc"]["Label"]) == ([], "1")
    assert about["aigc"]["ProduceID"] == answer.json()["id"]
    assert about["ignored"] == ["adapter", "presence_penalty", "tools"]
    assert answer.headers["x-medchat-aigc"].startswith("Label=1")
    events = [line[6:] for line in served.post(question("头痛", stream=True)).text.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["medchat"]["disclaimer"] == served.opened.mark


def test_settings_reach_the_model(served: Served) -> None:
    cut = served.post(question("头痛", max_tokens=3, max_completion_tokens=2)).json()
    assert (cut["choices"][0]["message"]["content"], cut["choices"][0]["finish_reason"]) == ("你问", "length")


def test_no_word_of_question_or_answer_is_logged(served: Served) -> None:
    served.post(question("头痛欲裂"))
    served.post({"messages": "头痛欲裂"})
    served.post(question("坏掉"))
    with served.client() as client:
        client.get("/头痛欲裂")
    text = served.logged(4)
    assert "out=8" in text and "PluginError" in text
    assert not any(word in text for word in ("头痛", "你问", "坏掉", "gone", "%E5"))
