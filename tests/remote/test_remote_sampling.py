"""Which decoding settings are sent, and what happens where the endpoint does not take one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from medchat_remote.backbone import RemoteBackbone
from medchat_remote.messages import MessagesTemplate
from medchat_remote.request import ChatRequest, Dialect
from openai_server import Asked, OpenAIServer, Reply, refusal
from remote_models import ANSWER, PROMPT, Load, ask, text_of

from medchat.api import GenerationConfig
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.repl.set_command import apply_setting, values_in_force

pytest_plugins = ("cli_program", "remote_models")

DEFAULT = RemoteBackbone.generation
QUESTION = "头痛怎么办？"
ALWAYS = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 1024}
SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")


def body(config: GenerationConfig, dialect: Dialect | None = None) -> dict[str, Any]:
    sent, _ = ChatRequest.build(PROMPT, config).body("m", dialect or Dialect())
    assert sent.pop("messages") == [{"role": "user", "content": QUESTION}]
    return sent


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ({}, {}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.7, "top_p": 0.8}),
        ({"top_k": 0}, {"top_k": 0}),
        ({"repetition_penalty": 1.0, "seed": 3}, {"repetition_penalty": 1.0, "seed": 3}),
        ({"greedy": True}, {"temperature": 0}),
        ({"greedy": True, "temperature": 0.5, "top_p": 0.8, "top_k": 5}, {"temperature": 0}),
        ({"greedy": True, "repetition_penalty": 1.1}, {"temperature": 0, "repetition_penalty": 1.1}),
        ({"seed": None}, {}),
    ],
)
def test_what_the_user_chose_is_sent_and_nothing_else(chosen: dict[str, Any], sent: dict[str, Any]) -> None:
    assert body(DEFAULT.with_settings(**chosen)) == {**ALWAYS, **sent}


def test_there_is_no_beam_search() -> None:
    with pytest.raises(UsageError, match="束搜索"):
        body(DEFAULT.with_settings(num_beams=4))


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        ((), {}),
        (("--temperature", "0.3"), {"temperature": 0.3}),
        (("--top-p", "0.9", "--seed", "5"), {"top_p": 0.9, "seed": 5}),
        (("--greedy",), {"temperature": 0}),
    ],
)
def test_flags_reach_the_endpoint_and_defaults_do_not(
    server: OpenAIServer, call: Call, flags: tuple[str, ...], sent: dict[str, Any]
) -> None:
    assert call("ask", QUESTION, "--backbone", "remote", "--model", server.url, *flags).code == 0
    (asked,) = server.questions
    assert {name: asked.body[name] for name in SAMPLING if name in asked.body} == sent


def test_what_the_server_decides_is_shown_as_such(
    load: Load, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ChatSession(load(), MessagesTemplate(), DEFAULT)
    assert dict(values_in_force(session))["temperature"] == "由服务端决定"
    apply_setting(session, "temperature", "0.4")
    assert dict(values_in_force(session))["temperature"] == "0.4"
    assert body(session.config) == {**ALWAYS, "temperature": 0.4}
    monkeypatch.setenv("MEDCHAT_BACKBONE", "remote")
    shown = json.loads(call("config", "show", "--json").out)
    assert shown["generation.temperature"] is None and shown["generation.max_new_tokens"] == 1024
    assert json.loads(call("plugins", "show", "remote", "--json").out)["generation"]["top_p"] is None


def test_a_batch_states_what_was_chosen_and_no_more(server: OpenAIServer, call: Call, tmp_path: Path) -> None:
    data, output = tmp_path / "q.txt", tmp_path / "a.jsonl"
    data.write_text(QUESTION, encoding="utf-8")
    flags = ("--backbone", "remote", "--model", server.url, "--temperature", "0.3")
    assert call("infer", "--data", str(data), "--output", str(output), *flags).code == 0
    row = json.loads(output.read_text(encoding="utf-8"))
    assert row["decoding"]["temperature"] == 0.3 and "top_p" not in row["decoding"]


# ---------------------------------------------------------------- what the endpoint does not take

OPENAI = "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) is supported."
PYDANTIC = {
    "detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted", "input": 0.3}]
}


def as_refusal(status: int, value: object) -> Reply:
    return Reply(status=status, kind="application/json", body=json.dumps(value))


@pytest.mark.parametrize(
    "refused",
    [
        refusal(400, OPENAI),
        refusal(400, "temperature must be in (0.0, 1.0]"),
        refusal(422, "Unexpected fields in the request: {'temperature'}"),
        as_refusal(422, PYDANTIC),
        as_refusal(400, {"error": {"message": "Invalid value.", "param": "temperature"}}),
        as_refusal(400, {"object": "error", "message": "1.5 > 1 - 'Temperature'", "code": 40303}),
        Reply(status=400, kind="text/plain", body="bad Temperature"),
        Reply(raw=[b'data: {"error": {"message": "temperature out of range", "code": 400}}\n\n']),
        Reply(raw=[b'data: {"code": "InvalidParameter", "message": "bad temperature"}\n\n']),
        Reply(kind="application/json", body='{"error": {"message": "unknown field temperature"}}'),
    ],
)
def test_a_setting_that_is_refused_is_left_out_and_named(
    server: OpenAIServer, load: Load, refused: Reply
) -> None:
    server.reply_to = lambda asked: refused if "temperature" in asked.body else Reply()
    model, config = load(), DEFAULT.with_settings(temperature=0.3, top_p=0.9)
    for asked in (2, 3):  # known by the second question
        deltas = ask(model, config)
        assert text_of(deltas) == ANSWER and deltas[-1].rejected == ("temperature",)
        assert len(server.questions) == asked
    assert server.questions[-1].body["top_p"] == 0.9
    (completion,) = model.generate_batch([PROMPT], config)
    assert (completion.text, completion.rejected) == (ANSWER, ("temperature",))


def test_another_value_of_it_is_tried_again(server: OpenAIServer, load: Load) -> None:
    server.reply_to = lambda asked: refusal(400, OPENAI) if asked.body.get("temperature") == 0 else Reply()
    model = load()
    assert ask(model, DEFAULT.with_settings(greedy=True))[-1].rejected == ("temperature",)
    last = ask(model, DEFAULT.with_settings(temperature=0.6))[-1]
    assert last.rejected == () and server.questions[-1].body["temperature"] == 0.6


@pytest.mark.parametrize("name", ["top_p", "top_k", "repetition_penalty", "seed"])
@pytest.mark.parametrize(
    "spell", [str, lambda name: name.replace("_", "-"), lambda name: name.replace("_", "")]
)
def test_every_setting_may_be_refused_in_any_spelling(
    server: OpenAIServer, load: Load, name: str, spell: Callable[[str], str]
) -> None:
    complaint = refusal(400, f"unknown argument {spell(name)}!")
    server.reply_to = lambda asked: complaint if name in asked.body else Reply()
    chosen = {"temperature": 0.3, "top_p": 0.5, "top_k": 7, "repetition_penalty": 1.2, "seed": 1}
    deltas = ask(load(), DEFAULT.with_settings(**chosen))
    assert text_of(deltas) == ANSWER and deltas[-1].rejected == (name,)
    sent = server.questions[-1].body
    assert {key: sent[key] for key in chosen if key in sent} == {k: v for k, v in chosen.items() if k != name}


def test_several_are_left_out_one_after_the_other(server: OpenAIServer, load: Load) -> None:
    def picky(asked: Asked) -> Reply:
        wrong = [
            name for name in ("temperature", "top_k", "stream_options", "max_tokens") if name in asked.body
        ]
        return refusal(400, f"unsupported: {', '.join(wrong)}") if wrong else Reply()

    server.reply_to = picky
    deltas = ask(load(), DEFAULT.with_settings(temperature=0.3, top_k=7))
    assert text_of(deltas) == ANSWER
    assert set(deltas[-1].rejected) == {"temperature", "top_k", "max_new_tokens"}


def test_of_two_that_exclude_each_other_one_stays(server: OpenAIServer, load: Load) -> None:
    def either(asked: Asked) -> Reply:
        both = {"temperature", "top_p"} <= asked.body.keys()
        return refusal(400, "`temperature` and `top_p` cannot both be specified") if both else Reply()

    server.reply_to = either
    assert ask(load(), DEFAULT.with_settings(temperature=0.3, top_p=0.9))[-1].rejected == ("top_p",)


def test_a_stop_text_that_is_refused_still_ends_the_answer(server: OpenAIServer, load: Load) -> None:
    server.reply_to = lambda asked: refusal(400, "stop: too long") if "stop" in asked.body else Reply()
    deltas = ask(load(), GenerationConfig(stop=("，",), unset=DEFAULT.unset))
    assert text_of(deltas) == "多喝水" and deltas[-1].rejected == ()


@pytest.mark.parametrize(
    "refused",
    [
        refusal(
            400, "the temperature of this model's context window is 2048 tokens"
        ),  # too long, whatever else
        refusal(400, "no"),
        refusal(400, "temperatures vary"),
        refusal(401, "temperature"),
        refusal(404, "temperature"),
    ],
)
def test_what_names_no_setting_is_not_asked_twice(server: OpenAIServer, load: Load, refused: Reply) -> None:
    server.usual = refused
    model = load()
    with pytest.raises(Exception, match=str(refused.status)):
        ask(model, DEFAULT.with_settings(temperature=0.3))
    assert len(server.questions) == 1


def test_the_users_own_words_are_no_complaint(server: OpenAIServer, load: Load) -> None:
    prompt = MessagesTemplate().render((), "What body temperature is a fever?")
    server.usual = refusal(400, "blocked: What body temperature is a fever?")
    with pytest.raises(UsageError):
        ask(load(), DEFAULT.with_settings(temperature=0.3), prompt)
    assert len(server.questions) == 1


def test_after_the_first_word_no_setting_is_left_out(server: OpenAIServer, load: Load) -> None:
    first = json.dumps({"choices": [{"delta": {"content": "多喝"}}]})
    failed = json.dumps({"error": {"message": "temperature out of range", "code": 400}})
    server.usual = Reply(raw=[f"data: {first}\n\ndata: {failed}\n\n".encode()])
    with pytest.raises(UsageError, match="400"):
        ask(load(), DEFAULT.with_settings(temperature=0.3))
    assert len(server.questions) == 1


def test_a_refusal_that_does_not_end_ends(server: OpenAIServer, load: Load) -> None:
    server.usual = refusal(
        400, "temperature top_p top_k seed stop stream_options max_tokens max_completion_tokens"
    )
    with pytest.raises(UsageError, match="400"):
        ask(load(), DEFAULT.with_settings(temperature=0.3, top_p=0.3, top_k=3, seed=3))
    assert len(server.questions) < 12


# ---------------------------------------------------------------- as the user sees it


def refusing(asked: Asked) -> Reply:
    return refusal(400, "temperature must be in (0.0, 1.0]") if "temperature" in asked.body else Reply()


def test_it_is_said_once_on_stderr_and_stands_in_json(server: OpenAIServer, call: Call) -> None:
    server.reply_to = refusing
    flags = ("--backbone", "remote", "--model", server.url, "--greedy")
    outcome = call("ask", QUESTION, "--json", *flags)
    assert outcome.code == 0 and outcome.one()["rejected_settings"] == ["temperature"]
    assert outcome.err.count("不接受 temperature") == 1 and "--greedy" in outcome.err
    assert call("ask", QUESTION, "--json", *flags[:-1]).one()["rejected_settings"] == []
    chat = call("chat", *flags, stdin=f"{QUESTION}\n{QUESTION}\n")
    assert chat.out.count(ANSWER) == 2 and chat.err.count("不接受 temperature") == 1


def test_a_batch_says_it_once_marks_its_lines_and_counts_them(
    server: OpenAIServer, call: Call, tmp_path: Path
) -> None:
    server.reply_to = refusing
    data, output = tmp_path / "q.txt", tmp_path / "a.jsonl"
    data.write_text("一？\n二？\n三？\n", encoding="utf-8")
    flags = ("--backbone", "remote", "--model", server.url, "--batch-size", "2")
    outcome = call("infer", "--data", str(data), "--output", str(output), *flags)
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["rejected_settings"] for row in rows] == [["temperature"]] * 3
    assert outcome.err.count("服务端不接受 temperature") == 1
    assert "3 个回答没有用上 temperature" in outcome.err
