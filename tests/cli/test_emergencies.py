"""Red flags where a user meets them: before the answer of `ask`, `chat`, `infer` and a remote model, and after it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from child_process import child_environment
from cli_program import MARK_ZH, DumbTerminal, Scripted, run
from openai_server import Asked, OpenAIServer, Reply, serving
from scripted_backbone import BROKEN

from medchat.medical_safety import find_red_flags

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.safety

SELF_HARM, CHEST = "我想自杀", "我爸胸口疼，出冷汗"


def full(question: str, previous: str | None = None) -> str:
    (notice, *_) = find_red_flags(question, previous).notices
    return notice.text


def short(question: str) -> str:
    (notice, *_) = find_red_flags(question).notices
    return notice.short


# ---------------------------------------------------------------- ask


@pytest.mark.parametrize("question", [SELF_HARM, CHEST, "宝宝从床上摔下来，叫不醒了"])
def test_the_notice_stands_before_the_answer_on_both_streams(scripted: Scripted, question: str) -> None:
    told = scripted.run("ask", question)
    assert told.code == 0
    assert told.out == f"{full(question)}\n你问的是{question}\n"
    assert full(question) in told.err and told.err.index(full(question)) < told.err.index(MARK_ZH)


def test_json_holds_the_key_and_keeps_the_answer_apart(scripted: Scripted) -> None:
    whole = scripted.run("ask", SELF_HARM, "--json").one()
    assert whole["answer"] == f"你问的是{SELF_HARM}"
    assert whole["safety"] == [{"key": "self-harm", "text": full(SELF_HARM), "urgent": True}]
    assert whole["answer_notices"] == []
    start, notice, *_, end = scripted.run("ask", SELF_HARM, "--events").lines()
    assert notice == {"event": "notice", "key": "self-harm", "text": full(SELF_HARM), "urgent": True}
    assert start["event"] == "start" and end["safety"] == whole["safety"]


def test_an_ordinary_question_gets_no_notice(scripted: Scripted) -> None:
    told = scripted.run("ask", "感冒了吃什么好？", "--json").one()
    assert told["safety"] == [] and told["answer_notices"] == []


def test_an_english_interface_gets_the_english_notice(scripted: Scripted) -> None:
    told = scripted.run("ask", SELF_HARM, "--json", "--lang", "en").one()
    assert "12356" in told["safety"][0]["text"] and told["safety"][0]["text"].isascii()


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        ("不用去医院，在家观察就好。", ["answer-contradicts"]),
        ("请马上拨打120，不要在家观察。", []),
    ],
)
def test_an_answer_that_speaks_against_the_notice_is_said_to_do_so(
    scripted: Scripted, answer: str, keys: list[str]
) -> None:
    told = scripted.run("ask", f"{CHEST}。{answer}", "--json")  # the scripted model repeats the question
    assert [notice["key"] for notice in told.one()["answer_notices"]] == keys
    text = scripted.run("ask", f"{CHEST}。{answer}")
    assert ("请以提示为准" in text.err) == bool(keys) and "请以提示为准" not in text.out
    plain = scripted.run("ask", f"感冒了。{answer}", "--json").one()
    assert plain["answer_notices"] == []  # nothing fired: the answer is not looked at


@pytest.mark.terminal
@pytest.mark.parametrize("lines", [2, 40])
def test_on_a_terminal_an_answer_taller_than_it_is_followed_by_the_short_line(
    scripted: Scripted, lines: int
) -> None:
    question = f"{CHEST}。" + "\n然后呢" * lines  # the scripted model repeats the question
    with DumbTerminal("ask", question, *scripted.flags, PYTHONPATH=scripted.python_path) as screen:
        shown = screen.wait_for(MARK_ZH)
        ended = screen.end()
        assert (shown + ended.out).count(full(CHEST)) == 1  # stdout and stderr are one screen here
        assert ended.code == 0 and (short(CHEST) in shown + ended.out) == (lines == 40)


# ---------------------------------------------------------------- a conversation


def test_a_second_message_of_the_same_kind_gets_the_short_line(scripted: Scripted) -> None:
    told = scripted.run("chat", "--no-save", stdin=f"{CHEST}\n我妈胸口疼，出冷汗\n{SELF_HARM}\n")
    first, second, third = (told.out.index(text) for text in (full(CHEST), short(CHEST), full(SELF_HARM)))
    assert told.out.count(full(CHEST)) == 1 and first < second < third


def test_a_conversation_that_goes_on_remembers_what_it_has_shown(scripted: Scripted) -> None:
    assert full(CHEST) in scripted.run("ask", CHEST).out
    again = scripted.run("ask", "-c", CHEST)
    assert short(CHEST) in again.out and full(CHEST) not in again.out
    assert full(CHEST) in scripted.run("ask", CHEST).out  # another conversation


def test_two_turns_make_one_emergency(scripted: Scripted) -> None:
    before, now = "我刚吃了虾", "舌头肿了"
    assert not find_red_flags(before) and not find_red_flags(now)
    told = scripted.run("chat", "--no-save", stdin=f"{before}\n{now}\n")
    assert full(now, before) in told.out


def test_new_begins_with_the_full_text_again(scripted: Scripted) -> None:
    told = scripted.run("chat", "--no-save", stdin=f"{CHEST}\n/新建\n{CHEST}\n")
    assert told.out.count(full(CHEST)) == 2


# ---------------------------------------------------------------- a remote model


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def test_a_remote_model_is_asked_behind_the_notice_too(server: OpenAIServer) -> None:
    asked: list[Asked] = []

    def reply(question: Asked) -> Reply:
        asked.append(question)
        return Reply()

    server.reply_to = reply
    told = run("ask", SELF_HARM, "--backbone", "remote", "--model", server.url)
    assert told.out.startswith(full(SELF_HARM) + "\n") and asked


# ---------------------------------------------------------------- whom to call


def test_the_numbers_are_printed_by_command_and_in_a_chat(scripted: Scripted) -> None:
    printed = run("safety", "hotlines")
    assert printed.code == 0 and "120" in printed.out and "12356" in printed.out and "核对" in printed.out
    numbers = run("safety", "hotlines", "--json").one()
    assert {line["number"] for line in numbers} == {"120", "110", "119", "12356"}
    assert all(line["checked"] and line["what"] for line in numbers)
    assert all(line["region"] == "CN" and "中国大陆" in line["region_note"] for line in numbers)
    assert all("当地的急救电话" in line["region_note"] for line in numbers)
    (english,) = {line["region_note"] for line in run("--lang", "en", "safety", "hotlines", "--json").one()}
    assert "mainland China" in english and "local emergency number" in english
    for typed in ("/热线", "/hotlines", "/ho"):
        assert printed.out in scripted.run("chat", "--no-save", stdin=f"{typed}\n").err


def test_a_start_pays_neither_for_the_detector_nor_for_masking() -> None:
    late = ("medchat.medical_safety.red_flags", "medchat.medical_safety.answers", "medchat.redaction")
    code = (
        "import sys, medchat.commands.chat, medchat.commands.ask, medchat.repl.terminal;"
        f" print([name for name in {late!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# ---------------------------------------------------------------- while the model is loading


@pytest.mark.parametrize(("verb", "words", "typed"), [("ask", (CHEST,), ""), ("chat", ("--no-save",), CHEST)])
def test_the_notice_does_not_wait_for_the_model(
    scripted: Scripted, verb: str, words: tuple[str, ...], typed: str
) -> None:
    (scripted.model / BROKEN).touch()
    told = scripted.run(verb, *words, stdin=f"{typed}\n")
    assert told.code == 3 and full(CHEST) in told.out and full(CHEST) in told.err
    assert told.err.index(full(CHEST)) < told.err.index("broken")


@pytest.mark.parametrize("flags", [(), ("--json",), ("--events",)])
def test_a_notice_that_did_not_wait_is_not_said_twice(scripted: Scripted, flags: tuple[str, ...]) -> None:
    told = scripted.run("ask", CHEST, *flags)
    assert told.err.count(full(CHEST)) == 1
    assert told.out.count(full(CHEST)) == {(): 1, ("--json",): 1, ("--events",): 2}[flags]
    again = scripted.run("ask", "-c", CHEST, *flags)
    assert (again.err.count(full(CHEST)), again.err.count(short(CHEST))) == (0, 1)
