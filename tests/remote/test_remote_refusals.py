"""The remote model against a server that refuses and lies; keys, models, contexts, counts."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from locations import DATA
from medchat_remote.loading import load_remote_model
from medchat_remote.messages import MessagesTemplate
from openai_server import TEXT, OpenAIServer, Reply, free_port, refusal, serving
from remote_models import ANSWER, PROMPT, QUICK, Load, ask, failure, text_of

from medchat.api import GenerationConfig, LoadOptions, Text
from medchat.chat.session import ChatSession
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.repl.context_commands import FACT_NAMES

pytest_plugins = ("remote_models",)

# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (refusal(401, "bad key"), UsageError, "401"),
        (refusal(403, "not yours"), UsageError, "403"),
        (refusal(404, "The model `tiny` does not exist."), CheckpointError, "does not exist"),
        (refusal(400, "This model's maximum context length is 2048 tokens"), UsageError, "context length"),
        (refusal(422, "Unexpected fields: {'foo'}"), UsageError, "foo"),
        (Reply(status=418, body="I'm a teapot", kind="text/plain"), MedchatError, "418"),
        (Reply(kind="text/html", body="<html>Welcome</html>"), MedchatError, "OpenAI"),
        (Reply(status=404, kind="text/html", body="<html>nothing</html>"), CheckpointError, "404"),
        (Reply(raw=[b"data: " + b"x" * (2 << 20)]), MedchatError, "OpenAI"),
        (Reply(kind="application/json", body="{]"), MedchatError, "OpenAI"),
    ],
)  # fmt: skip
def test_refusals_are_one_line_with_a_remedy_and_asked_once(
    server: OpenAIServer, load: Load, reply: Reply, kind: type[MedchatError], words: str
) -> None:
    server.usual = reply
    said, error = failure(load())
    assert (type(error), said, len(server.questions)) == (kind, "", 1)
    assert words in error.what and len(error.what) < 300 and "<" not in error.what


@pytest.mark.parametrize(
    "reply",
    [
        refusal(400, "System role not supported"),
        refusal(400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
        refusal(400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        refusal(500, "jinja: raise_exception: System messages are not supported"),
        Reply(raw=[b'data: {"error": {"message": "system role is not allowed"}}\n\n']),
    ],
)
def test_a_model_that_takes_no_system_prompt_is_said_with_how_to_leave_it_out(
    server: OpenAIServer, load: Load, reply: Reply
) -> None:
    server.usual = reply
    model = load()
    with pytest.raises(UsageError) as caught:
        ask(model, prompt=MessagesTemplate().render((), "头痛怎么办？", "你是医生。"))
    assert "系统提示" in caught.value.what and "/系统 -" in caught.value.remedy
    assert len(server.questions) == 1
    assert "系统提示" not in failure(model)[1].what, "none was sent"


def test_a_system_prompt_is_not_blamed_for_what_is_wrong_elsewhere(server: OpenAIServer, load: Load) -> None:
    server.usual = refusal(400, "After the optional system message, conversation roles must alternate")
    with pytest.raises(UsageError) as caught:
        ask(load(), prompt=MessagesTemplate().render((), "头痛怎么办？", "你是医生。"))
    assert "系统提示" not in caught.value.what


@pytest.mark.parametrize("body", ["<html><p>Login", "\n<!DOCTYPE html>", "<HTML>"])
@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/event-stream"])
def test_a_web_page_in_an_answers_place_is_called_one(
    server: OpenAIServer, load: Load, body: str, kind: str
) -> None:
    server.usual = server.models_reply = Reply(kind=kind, body=body)
    error = failure(load(server.url + "#m"))[1]
    assert "网页" in error.what and "登录" in error.remedy and "/v1" in error.remedy
    with pytest.raises(MedchatError, match="网页"):
        load()


@pytest.mark.parametrize("body", ["多喝水。", "service is starting\nplease wait\n", "<3\n", "id=7 ok"])
def test_a_plain_text_in_an_answers_place_is_shown_as_no_answer(
    server: OpenAIServer, load: Load, body: str
) -> None:
    server.usual = Reply(kind="text/plain", body=body)
    error = failure(load())[1]
    assert "OpenAI" in error.what and (body.split("\n")[0] in error.what or body.startswith("<"))


def test_nobody_there_is_said_with_the_host() -> None:
    address = f"http://127.0.0.1:{free_port()}/v1#m"
    with pytest.raises(MedchatError) as caught:
        load_remote_model(LoadOptions(Path(address), address=address), QUICK)
    assert "无法连接" in caught.value.what and caught.value.where in address and caught.value.remedy


def test_a_silent_server_is_not_waited_for_for_ever(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_TIMEOUT", "1")
    server.usual = Reply(pieces=(), silent=True)
    error = failure(load())[1]
    assert "1 秒" in error.what and "MEDCHAT_REMOTE_TIMEOUT" in error.remedy
    assert len(server.questions) == 1


def test_a_certificate_nobody_vouches_for_is_refused(load: Load, tmp_path: Path) -> None:
    with serving() as server:
        _make_tls(server, tmp_path)
        with pytest.raises(MedchatError) as caught:
            load(server.url.replace("http://", "https://"))
    assert "证书" in caught.value.what and "SSL_CERT_FILE" in caught.value.remedy


def test_a_certificate_the_user_vouches_for_is_trusted(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(_make_tls(server, tmp_path)))
        assert text_of(ask(load(server.url.replace("http://", "https://")))) == ANSWER
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(UsageError, match="证书"):
        load("https://127.0.0.1:9/v1")


def test_an_endpoint_that_speaks_https_says_so_when_asked_in_http(load: Load) -> None:
    alert = bytes.fromhex("15030100020246")  # what OpenSSL answers plain HTTP
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(alert)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UsageError, match="https") as caught:
            load(f"http://127.0.0.1:{listener.getsockname()[1]}/v1#m")
        thread.join()
    assert "https://127.0.0.1" in caught.value.remedy


@pytest.mark.parametrize("page", ["{}", "<html><title>400 {}</title>"])
def test_a_gateway_that_wants_https_is_understood(server: OpenAIServer, load: Load, page: str) -> None:
    body = page.format("The plain HTTP request was sent to HTTPS port")
    server.usual = Reply(status=400, kind="text/html", body=body)
    error = failure(load())[1]
    assert "加密" in error.what and "https://127.0.0.1" in error.remedy


def _make_tls(server: OpenAIServer, folder: Path) -> Path:
    """Have the server speak TLS with a certificate of its own, and return that certificate's file."""
    certificate = DATA / "loopback-certificate.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.use_tls(context)
    return certificate


# ---------------------------------------------------------------- the key


def test_the_key_goes_to_the_endpoint_and_not_along_with_a_redirect(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_KEY", "sk-geheim")
    with serving() as elsewhere:
        server.usual = Reply(status=307, headers={"Location": elsewhere.url + "/chat/completions"}, body="")
        error = failure(load())[1]
        assert server.questions[0].headers["authorization"] == "Bearer sk-geheim"
        assert not elsewhere.seen, "words and key went to another host"
    assert isinstance(error, UsageError) and "跳转" in error.what


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_server_that_repeats_the_key_does_not_get_it_shown(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_KEY", "sk-geheim")
    server.usual = refusal(status, "you sent sk-geheim")
    model = load()
    error = failure(model)[1]
    assert "you sent ***" in error.what
    assert "geheim" not in f"{error.what} {error.remedy} {error.where} {model.describe()}"


def test_without_a_key_none_is_sent_and_a_refusal_says_how_to_give_one(
    server: OpenAIServer, load: Load
) -> None:
    server.usual = refusal(401, "who are you?")
    error = failure(load())[1]
    assert "authorization" not in server.questions[0].headers
    assert "需要密钥" in error.what and "MEDCHAT_REMOTE_KEY" in error.remedy


def test_a_proxy_in_the_environment_never_sees_what_stays_on_this_machine(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert text_of(ask(load())) == ANSWER
        assert not proxy.seen


# ---------------------------------------------------------------- which model, how long


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


# ---------------------------------------------------------------- counts and scores


def test_prompts_are_counted_by_the_endpoints_tokenizer_where_it_has_one(
    server: OpenAIServer, load: Load
) -> None:
    assert load().count(PROMPT) == 6 + 2 * 6  # a character a token, and what stands around a message

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
