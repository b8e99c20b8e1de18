"""The remote backbone as a user types it: notices, exit codes, what is kept, and what is never shown."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_process import child_environment
from cli_program import MARK_ZH, Call, DumbTerminal, run, start, tree
from openai_server import CHAT, TEXT, Asked, OpenAIServer, Reply, refusal, serving

from medchat.api import Finish
from medchat.store import SessionStore

pytest_plugins = ("cli_program",)

QUESTION, ANSWER = "头痛怎么办？", "多喝水，多休息。"
SECRET = "sk-geheim-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def remote(server: OpenAIServer) -> tuple[str, ...]:
    return "--backbone", "remote", "--model", server.url


def host(server: OpenAIServer) -> str:
    return server.url.removeprefix("http://").removesuffix("/v1")


# ---------------------------------------------------------------- where the words go


@pytest.mark.parametrize("verb", ["ask", "ask --json", "chat", "infer"])
def test_where_the_words_go_is_said_before_the_first_of_them_is_sent(
    server: OpenAIServer, call: Call, tmp_path: Path, verb: str
) -> None:
    said_by_then: list[str] = []

    def look(asked: Asked) -> Reply:
        sys.stderr.flush()
        said_by_then.append(sys.stderr.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return Reply()

    server.reply_to = look
    data = tmp_path / "questions.txt"
    data.write_text(QUESTION, encoding="utf-8")
    words = {
        "ask": ["ask", QUESTION],
        "ask --json": ["ask", QUESTION, "--json"],
        "chat": ["chat"],
        "infer": ["infer", "--data", str(data), "--output", str(tmp_path / "answers.jsonl")],
    }[verb]
    for start_number in range(2):  # at every start, not once per install
        given = words + (["--overwrite"] if verb == "infer" and start_number else [])
        outcome = call(*given, *remote(server), stdin=QUESTION if verb == "chat" else "")
        assert outcome.code == 0, outcome.err
    assert len(said_by_then) == 2
    for said in said_by_then:
        notice = next(line for line in said.splitlines() if "会发送到" in line)
        assert host(server) in notice


def test_on_a_terminal_it_stands_above_the_first_prompt(server: OpenAIServer) -> None:
    with DumbTerminal("chat", *remote(server)) as terminal:
        shown = terminal.wait_for("› ")
        assert "会发送到" in shown and host(server) in shown and not server.questions
        terminal.type(QUESTION)
        terminal.wait_for(MARK_ZH)
        terminal.type("/exit")
        assert terminal.end().code == 0


# ---------------------------------------------------------------- answers


def test_the_answer_alone_is_on_stdout_and_json_says_who_answered(server: OpenAIServer, call: Call) -> None:
    outcome = call("ask", QUESTION, *remote(server))
    assert (outcome.code, outcome.out) == (0, ANSWER + "\n")
    assert MARK_ZH in outcome.err
    server.usual = Reply(usage={"prompt_tokens": 11, "completion_tokens": 7})
    row = call("ask", QUESTION, "--json", *remote(server)).one()
    assert (row["answer"], row["finish"], row["backbone"]) == (ANSWER, "stop", "remote")
    assert row["model"] == server.url + "#tiny"
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_estimated"]) == (11, 7, False)


def test_counts_that_are_guesses_are_marked_everywhere(
    server: OpenAIServer, call: Call, tmp_path: Path
) -> None:
    assert call("ask", QUESTION, "--json", *remote(server)).one()["tokens_estimated"] is True
    assert "输出 约 3 词元" in call("chat", *remote(server), stdin=QUESTION).err.replace(
        "约 ", " 约 "
    ).replace("  ", " ")
    data, output = tmp_path / "q.txt", tmp_path / "a.jsonl"
    data.write_text(QUESTION, encoding="utf-8")
    assert call("infer", "--data", str(data), "--output", str(output), *remote(server)).code == 0
    (line,) = output.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["tokens_estimated"] is True


def test_a_batch_is_answered_in_order_and_deterministically_asked(
    server: OpenAIServer, call: Call, tmp_path: Path
) -> None:
    server.reply_to = lambda asked: Reply(pieces=["答" + asked.body["messages"][-1]["content"]])
    data, output = tmp_path / "q.txt", tmp_path / "a.jsonl"
    questions = [f"第{number}问" for number in range(11)]
    data.write_text("\n".join(questions), encoding="utf-8")
    outcome = call(
        "infer", "--data", str(data), "--output", str(output), "--batch-size", "4", *remote(server)
    )
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["answer"] for row in rows] == [f"答{question}" for question in questions]
    assert rows[0]["model"] == server.url
    assert all(asked.body["temperature"] == 0 for asked in server.questions)


def test_a_saved_session_goes_on_with_the_same_endpoint_and_template(
    server: OpenAIServer, call: Call
) -> None:
    assert call("ask", QUESTION, "--session", "头痛", *remote(server)).code == 0
    assert call("ask", "还有呢？", "--continue").code == 0
    assert [message["content"] for message in server.questions[-1].body["messages"]] == [
        QUESTION,
        ANSWER,
        "还有呢？",
    ]
    named = call("ask", QUESTION, *remote(server), "--template", "med_template", "--session", "模板")
    assert named.code == 0 and call("ask", "然后呢？", "--session", "模板").code == 0
    assert [asked.path for asked in server.questions] == [CHAT, CHAT, TEXT, TEXT]


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (refusal(401, "bad key"), 2, "需要密钥"),
        (refusal(404, "no such model"), 3, "no such model"),
        (refusal(400, "unknown field"), 2, "unknown field"),
        (refusal(429, "later", retry_after="99"), 1, "429"),
        (Reply(kind="text/html", body="<html>"), 1, "OpenAI"),
    ],
    ids=["key", "model", "request", "busy", "not-an-api"],
)
def test_each_failure_is_two_lines_with_its_exit_code(
    server: OpenAIServer, call: Call, reply: Reply, code: int, words: str
) -> None:
    server.usual = reply
    outcome = call("ask", QUESTION, *remote(server))
    what, _ = outcome.failure()
    assert (outcome.code, outcome.out) == (code, "")
    assert words in what and host(server) in what


def test_an_answer_cut_off_is_shown_kept_and_reported(server: OpenAIServer, call: Call) -> None:
    server.usual = Reply(pieces=["多喝水"], cut=True)
    outcome = call("ask", QUESTION, *remote(server))
    what, remedy = outcome.failure()
    assert (outcome.code, outcome.out) == (1, "多喝水\n")
    assert "断开" in what and "保留" in remedy
    with SessionStore.open() as store:
        (record,) = store.list()
        (saved,) = store.turns(record.id)
    assert (saved.turn.answer, saved.turn.finish) == ("多喝水", Finish.ERROR)


def test_ctrl_c_stops_a_silent_server_keeps_the_part_and_ends_with_130(server: OpenAIServer) -> None:
    server.usual = Reply(pieces=["多喝水"], silent=True)
    with start("ask", QUESTION, *remote(server)) as process:
        assert process.stdout is not None
        assert process.stdout.read(len("多喝水".encode())).decode() == "多喝水"
        process.send_signal(signal.SIGINT)
        assert server.client_gone.wait(5)
        assert process.wait(10) == 130
        assert process.stderr is not None and "保留部分回答" in process.stderr.read().decode()


def test_ctrl_c_in_a_batch_lets_every_connection_go(server: OpenAIServer, tmp_path: Path) -> None:
    server.usual = Reply(pieces=["多喝水"], silent=True)
    data = tmp_path / "q.txt"
    data.write_text("一？\n二？\n", encoding="utf-8")
    output = str(tmp_path / "a.jsonl")
    with start("infer", "--data", str(data), "--output", output, *remote(server)) as process:
        assert server.silent.wait(30)
        process.send_signal(signal.SIGINT)
        assert server.client_gone.wait(5)
        assert process.wait(10) == 130


# ---------------------------------------------------------------- what is forbidden


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_offline_forbids_it_before_anything_is_sent(
    server: OpenAIServer, call: Call, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    flags: tuple[str, ...] = ()
    if how == "flag":
        flags = ("--offline",)
    elif how == "variable":
        monkeypatch.setenv("MEDCHAT_OFFLINE", "1")
    else:
        configuration = Path(call("config", "path").out.strip().splitlines()[0])
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text("offline = true\n", encoding="utf-8")
    for verb in (["ask", QUESTION], ["chat"]):
        outcome = call(*verb, *remote(server), *flags, stdin=QUESTION)
        what, _ = outcome.failure()
        assert (outcome.code, outcome.out) == (2, "") and "offline" in what
        assert "会发送到" not in outcome.err, "it was refused too late"
    assert not server.seen


def test_a_folders_own_file_cannot_send_questions_anywhere(
    server: OpenAIServer, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in ('backbone = "remote"', f'model = "{server.url}"'):
        (tmp_path / "medchat.toml").write_text(line + "\n", encoding="utf-8")
        outcome = call("ask", QUESTION, "--backbone", "remote")
        what, _ = outcome.failure()
        assert outcome.code == 2 and "medchat.toml" in what
    assert not server.seen


def test_an_address_alone_does_not_choose_the_remote_backbone(server: OpenAIServer, call: Call) -> None:
    for backbone in ((), ("--backbone", "chatglm")):
        outcome = call("ask", QUESTION, "--model", server.url, *backbone)
        assert outcome.code == 2 and "--backbone remote" in outcome.failure()[1]
    assert not server.seen


def test_no_address_and_no_miniature(call: Call) -> None:
    outcome = call("ask", QUESTION, "--backbone", "remote")
    assert outcome.code == 2 and "http://127.0.0.1:8000/v1#" in outcome.failure()[1]
    outcome = call("demo", "--backbone", "remote")
    assert outcome.code != 0 and outcome.failure()[1]


# ---------------------------------------------------------------- the key


def test_the_key_is_sent_and_neither_shown_nor_stored(server: OpenAIServer, tmp_path: Path) -> None:
    server.script += [Reply(), refusal(401, f"Incorrect key {SECRET}")]
    home = tmp_path / "home"
    shown = ""
    for flags in ((), ("--json",), ("--debug",)):
        words = (
            *(flags if flags == ("--debug",) else ()),
            "ask",
            QUESTION,
            *(flags if flags == ("--json",) else ()),
        )
        outcome = run(*words, *remote(server), MEDCHAT_REMOTE_KEY=SECRET, MEDCHAT_HOME=str(home))
        shown += outcome.out + outcome.err
    shown += run("config", "show", "--origin", MEDCHAT_REMOTE_KEY=SECRET, MEDCHAT_HOME=str(home)).out
    assert {asked.headers["authorization"] for asked in server.seen} == {f"Bearer {SECRET}"}
    assert "Incorrect key ***" in shown and SECRET not in shown
    stored = tree(home)
    assert any(content for content in stored.values()), "nothing was stored: this test proves nothing"
    assert not [name for name, content in stored.items() if SECRET.encode() in content]


# ---------------------------------------------------------------- cost


def test_it_needs_no_torch(server: OpenAIServer) -> None:
    script = (
        "import sys; from medchat.__main__ import main; code = main();"
        " heavy = {'torch', 'transformers', 'sentencepiece'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "ask", QUESTION, *remote(server)],
        capture_output=True,
        env=child_environment(),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.decode()) == (0, ANSWER + "\n")
