"""The remote model against a server that refuses and lies; where the key goes."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from locations import DATA
from medchat_remote.loading import load_remote_model
from medchat_remote.messages import MessagesTemplate
from openai_server import OpenAIServer, Reply, free_port, refusal, serving
from remote_models import ANSWER, QUICK, Load, ask, failure, text_of

from medchat.api import LoadOptions
from medchat.errors import CheckpointError, MedchatError, UsageError

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
