"""The remote model against a server that streams, stalls, breaks off, refuses and lies."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from medchat_remote.address import Endpoint
from medchat_remote.chat_model import RemoteModel
from medchat_remote.loading import load_chat_model
from medchat_remote.messages import MessagesTemplate
from medchat_remote.patience import Patience
from openai_server import CHAT, TEXT, Asked, OpenAIServer, Reply, free_port, refusal, serving

from medchat.api import Delta, Finish, GenerationConfig, LoadOptions, Text
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.session import Answered, ChatSession, Piece
from medchat.templates import load_template

#: Quick enough for tests, and still a wait.
QUICK = Patience(delays=(0.01, 0.02, 0.03))
PROMPT = MessagesTemplate().render((), "头痛怎么办？")
ANSWER = "多喝水，多休息。"
WHOLE = json.dumps({"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]})
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

Load = Callable[..., RemoteModel]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving() as server:
        yield server


@pytest.fixture
def load(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a model from the test's server, or from another address."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    loaded = []

    def loader(address: str = "", **options: object) -> RemoteModel:
        address = address or server.url
        model = load_chat_model(LoadOptions(Path(address), address=address, **options), QUICK)  # type: ignore[arg-type]
        loaded.append(model)
        return model

    yield loader
    for model in loaded:
        model.close()


def ask(model: RemoteModel, config: GenerationConfig | None = None, prompt: object = PROMPT) -> list[Delta]:
    return list(model.stream(prompt, config or GenerationConfig(), threading.Event()))  # type: ignore[arg-type]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def failure(model: RemoteModel) -> tuple[str, MedchatError]:
    """Return what came before the failure, and the failure."""
    got: list[str] = []
    with pytest.raises(MedchatError) as caught:
        got.extend(delta.text for delta in model.stream(PROMPT, GenerationConfig(), threading.Event()))
    assert caught.value.what and caught.value.remedy, "an error without a remedy"
    assert "\n" not in caught.value.what
    return "".join(got), caught.value


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


@pytest.mark.parametrize(
    "reply",
    [
        Reply(done=False),
        Reply(finish=None),
        Reply(line_end="\r\n"),
        Reply(pieces=[ANSWER]),
        Reply(kind="application/json", body=WHOLE),
    ],
    ids=["no-done", "no-finish", "crlf", "one-piece", "not-streamed"],
)  # fmt: skip
def test_every_servers_way_of_answering_gives_the_same_answer(
    server: OpenAIServer, load: Load, reply: Reply
) -> None:
    server.usual = reply
    deltas = ask(load())
    assert text_of(deltas) == ANSWER and deltas[-1].finish is Finish.STOP
    assert deltas[-1].estimated and deltas[-1].completion_tokens >= 3


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
              b'data: {"choices":[{"delta":{"content":"\xff"}, "finish_reason":"stop"}]}\n\n']  # fmt: skip
    server.usual = Reply(raw=halves)
    text = text_of(ask(load()))
    assert text == "😀\ufffd\ufffd"
    text.encode("utf-8")


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
    assert [event.text for event in events if isinstance(event, Piece)] == ["水。"]
    assert isinstance(events[-1], Answered)
    roles = [(message["role"], message["content"]) for message in server.questions[-1].body["messages"]]
    assert roles == [("user", "头痛怎么办？"), ("assistant", "多喝"), ("user", "还有呢？")]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (refusal(401, "bad key"), UsageError, "401"),
        (refusal(403, "not yours"), UsageError, "403"),
        (refusal(404, "The model `tiny` does not exist."), CheckpointError, "does not exist"),
        (refusal(400, "This model's maximum context length is 2048 tokens"), UsageError, "context length"),
        (refusal(422, "Unexpected fields: {'top_k'}"), UsageError, "top_k"),
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


def test_nobody_there_is_said_with_the_host() -> None:
    address = f"http://127.0.0.1:{free_port()}/v1#m"
    with pytest.raises(MedchatError) as caught:
        load_chat_model(LoadOptions(Path(address), address=address), QUICK)
    assert "连不上" in caught.value.what and caught.value.where in address and caught.value.remedy


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


def _make_tls(server: OpenAIServer, folder: Path) -> Path:
    """Have the server speak TLS with a certificate of its own, and return that certificate's file."""
    certificate = Path(__file__).parent / "data" / "loopback-certificate.pem"
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
    with pytest.raises(UsageError, match="401"):
        load(server.url + "#m")


@pytest.mark.parametrize("models", ["<html>", ["x"], {"data": 3}])
def test_a_list_that_is_none_is_said_to_be_none(server: OpenAIServer, load: Load, models: object) -> None:
    server.models = models
    with pytest.raises(MedchatError, match="OpenAI"):
        load()


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
    before = {thread.name for thread in threading.enumerate()}
    model = load()
    assert any(thread.name == "medchat-remote" for thread in threading.enumerate())
    model.close()
    model.close()
    assert {thread.name for thread in threading.enumerate()} <= before | {"MainThread"}


def test_addresses_that_differ_only_in_writing_are_one(server: OpenAIServer) -> None:
    assert Endpoint.parse(server.url + "/chat/completions") == Endpoint.parse(server.url)
