"""MedChat as a client of MedChat: `ask --server`, and the backbone `remote` that knows whom it talks to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_program import Call, saved_turns
from medchat_serve.api_error import as_api_error
from medchat_serve.guard import Guard
from served_model import Served, serving

from medchat.chat.demo_mode import mark_as_demo
from medchat.plugin_kit import OpenedModel, UsageError, open_model

pytest_plugins = ("served_model",)

URGENT = "我爸突然剧烈胸痛，喘不上气，大汗"
TOKEN = "a-token-of-the-tests"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", ["", "/", "/v1"])
def test_ask_gets_from_the_server_what_it_gets_from_the_model(call: Call, served: Served, path: str) -> None:
    outcome = call("ask", "头痛", "--server", served.url + path, "--greedy")
    assert (outcome.code, outcome.out) == (0, "你问的是头痛\n"), outcome.err
    assert served.opened.mark in outcome.err


@pytest.mark.safety
def test_one_notice_is_shown_once_and_is_no_part_of_the_saved_answer(call: Call, served: Served) -> None:
    notice = served.opened.ask(URGENT).notices[0].text
    outcome = call("ask", URGENT, "--server", served.url)
    assert outcome.out == f"{notice}\n你问的是{URGENT}\n"
    assert outcome.err.count(notice) == 1, "stdout and stderr may be two screens"
    assert saved_turns()[0].turn.answer == f"你问的是{URGENT}"


@pytest.mark.safety
def test_a_server_that_does_not_say_that_it_is_medchat_is_asked_as_any_other(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = {"backbone": "remote", "model": f"{served.url}/v1#served"}
    for owner, sent in (("medchat", True), ("somebody", False)):
        fields = {"id": "served", "object": "model", "owned_by": owner, "max_model_len": 4096}
        monkeypatch.setattr(served.service, "model_fields", lambda fields=fields: fields)
        with open_model(address) as opened:
            answer = opened.ask(URGENT)
        assert answer.text.endswith(f"你问的是{URGENT}")
        assert (answer.text == f"你问的是{URGENT}") is sent


def test_several_turns_stop_texts_and_lengths_go_over_the_line(call: Call, served: Served) -> None:
    call("ask", "头痛", "--server", served.url, "--session", "甲")
    outcome = call(
        "ask", "发烧", "--server", served.url, "--session", "甲", "--max-new-tokens", "4", "--json"
    )
    assert (outcome.one()["answer"], outcome.one()["finish"]) == ("你问的是", "length")
    assert served.logged(2)


def test_a_token_is_the_key_of_the_remote_backbone(
    call: Call, scripted_model: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(scripted_model, guard=Guard(token=TOKEN)) as served:
        refused = call("ask", "头痛", "--server", served.url)
        assert refused.code != 0 and "MEDCHAT_REMOTE_KEY" in refused.err and TOKEN not in refused.err
        monkeypatch.setenv("MEDCHAT_REMOTE_KEY", TOKEN)
        assert call("ask", "头痛", "--server", served.url).out == "你问的是头痛\n"


@pytest.mark.parametrize("flag", ["--backbone", "--model", "--adapter", "--template"])
def test_what_loads_a_model_here_does_not_go_with_a_server(call: Call, flag: str) -> None:
    outcome = call("ask", "头痛", "--server", "http://127.0.0.1:1", flag, "bloom")
    assert outcome.code == 2 and flag in outcome.failure()[0]


def test_a_server_that_is_not_there_is_named(call: Call) -> None:
    outcome = call("ask", "头痛", "--server", "http://127.0.0.1:9")
    assert outcome.code != 0 and "127.0.0.1:9" in outcome.err


def test_an_address_that_is_none_is_refused(call: Call) -> None:
    assert call("ask", "头痛", "--server", "localhost").code == 2


@pytest.mark.parametrize("language", ["zh", "en"])
def test_what_the_demos_model_has_not_learned_is_refused_with_what_a_client_can_do(
    call: Call, scripted_model: OpenedModel, tmp_path: Path, language: str
) -> None:
    folder = tmp_path / "演示"
    shutil.copytree(str(scripted_model.provenance["model"]), folder)
    mark_as_demo(folder)
    with open_model(backbone="scripted", model=str(folder)) as demo, serving(demo) as served:
        outcome = call("--lang", language, "ask", "血压高", "--server", served.url)
        assert outcome.code == 2 and "血压多高算高血压？" in outcome.err
        assert "--force-answer" not in outcome.err and "--temperature" not in outcome.err
        assert {"zh": "按服务端所说的改问题", "en": "change the question"}[language] in outcome.err
        setting = call("--lang", language, "ask", "血压高", "--server", served.url, "--top-k", "999999999")
        assert setting.code == 2 and "--top-k" in setting.err


@pytest.mark.parametrize(
    ("remedy", "kept"),
    [
        ("请缩短问题，或用 /新建 开始新会话", "请缩短问题"),
        ("shorten the question, or start over with /new", "shorten the question"),
        ("请输入问题，或换一个 --template", "请输入问题"),
        ("try again with --dtype float32; if it persists, the weights may be damaged", "if it persists"),
        ("see https://example.org/v1 or ask for and/or", "and/or"),
    ],
)
def test_flags_and_slash_commands_are_left_out_of_what_a_client_is_advised(remedy: str, kept: str) -> None:
    message = as_api_error(UsageError("坏了", remedy)).message
    assert kept in message and message.startswith("坏了")
    assert "--" not in message and "/新建" not in message and "/new" not in message
