"""Which model an endpoint has and how much it holds: what its list says, in whatever form, and who knows better."""

from __future__ import annotations

from pathlib import Path

import pytest
from medchat_remote.loading import load_remote_model
from openai_server import OpenAIServer, free_port
from remote_models import ANSWER, QUICK, Load, ask, text_of

from medchat.api import LoadOptions
from medchat.errors import MedchatError, UsageError
from medchat.repl.context_commands import FACT_NAMES

pytest_plugins = ("remote_models",)


def test_the_model_and_its_context_are_what_the_endpoint_says(server: OpenAIServer, load: Load) -> None:
    model = load()
    about = model.describe()
    assert (about["served_model"], model.context_length) == ("tiny", 2048)
    assert about["backbone"] == "remote" and server.url in about["model"]
    assert about.keys() <= FACT_NAMES.keys(), "what /stats has no name for"
    assert "tiny" in about["notes"][0] and "127.0.0.1" in about["notes"][0]
    assert not server.questions, "a word was sent before the user asked"


def test_with_several_models_one_must_be_named(server: OpenAIServer, load: Load) -> None:
    server.models = {"data": [{"id": f"model-{i}"} for i in range(9)]}
    with pytest.raises(UsageError) as caught:
        load()
    assert f"{server.url}#model-0" in caught.value.remedy
    model = load(server.url + "#model-3")
    assert model.describe()["served_model"] == "model-3" and model.context_length == 4096
    assert any("MEDCHAT_REMOTE_CONTEXT" in note for note in model.describe()["notes"])
    assert any("model-0" in note for note in load(server.url + "#other").describe()["notes"])


@pytest.mark.parametrize(
    "entry", [{"context_length": 777}, {"context_window": 777}, {"meta": {"n_ctx_train": 777}}]
)
def test_every_servers_word_for_the_context_is_understood(
    server: OpenAIServer, load: Load, entry: dict[str, object]
) -> None:
    server.models = {"data": [{"id": "m", **entry}]}
    assert load().context_length == 777


@pytest.mark.parametrize("value", [0, -5, 63, True, "777", 1e9, 10**300, None, [777]])
def test_a_context_that_cannot_be_is_not_believed(server: OpenAIServer, load: Load, value: object) -> None:
    server.models = {"data": [{"id": "m", "max_model_len": value}]}
    assert load().context_length == 4096
    server.calls["/tokenize"] = lambda body: {"count": 3, "max_model_len": value}
    assert load().context_length == 4096


def test_the_user_knows_the_context_best(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_CONTEXT", "512")
    assert load().context_length == 512


def test_an_endpoint_without_a_list_will_do_if_the_model_is_named(server: OpenAIServer, load: Load) -> None:
    server.models = None
    assert load(server.url + "#m").describe()["served_model"] == "m"
    with pytest.raises(UsageError, match="没有写明"):
        load()


def test_a_list_that_fails_is_not_needed_where_the_model_is_named(server: OpenAIServer, load: Load) -> None:
    server.models_status = 500
    assert text_of(ask(load(server.url + "#m"))) == ANSWER
    assert [asked.method for asked in server.seen].count("GET") == 1
    with pytest.raises(MedchatError, match="500"):
        load()
    server.models_status = 401
    assert text_of(ask(load(server.url + "#m"))) == ANSWER
    with pytest.raises(UsageError, match="401"):
        load()


@pytest.mark.parametrize("models", ["<html>", 7, {"data": 3}])
def test_a_list_that_is_none_is_said_to_be_none_and_not_needed_where_the_model_is_named(
    server: OpenAIServer, load: Load, models: object
) -> None:
    server.models = models
    with pytest.raises(MedchatError, match="OpenAI") as caught:
        load()
    assert f"{server.url}#" in caught.value.remedy
    model = load(server.url + "#m")
    assert text_of(ask(model)) == ANSWER
    assert any("没有取得模型列表" in note for note in model.describe()["notes"])


@pytest.mark.parametrize(
    "models", [[{"id": "m"}], {"models": [{"name": "m"}]}, {"data": [{"id": "m"}, "x", {"id": 3}]}]
)
def test_lists_of_other_forms_name_the_one_model(server: OpenAIServer, load: Load, models: object) -> None:
    server.models = models
    assert load().describe()["served_model"] == "m"


@pytest.mark.parametrize("models", [{"data": None}, {"data": []}, {}, []])
def test_an_empty_list_is_an_endpoint_without_a_model(
    server: OpenAIServer, load: Load, models: object
) -> None:
    server.models = models
    with pytest.raises(UsageError, match="没有写明"):
        load()
    assert text_of(ask(load(server.url + "#m"))) == ANSWER


def test_nobody_there_is_no_matter_of_the_list() -> None:
    address = f"http://127.0.0.1:{free_port()}/v1#m"
    with pytest.raises(MedchatError, match="无法连接"):
        load_remote_model(LoadOptions(Path(address), address=address), QUICK)


def test_offline_and_adapters_are_refused_before_anything_is_sent(
    server: OpenAIServer, load: Load, tmp_path: Path
) -> None:
    for options in ({"offline": True}, {"adapters": (tmp_path,)}):
        with pytest.raises(UsageError):
            load(**options)
    assert not server.seen
