"""`medchat chat` without a terminal: one question an input line, every answered turn on disk, whatever comes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from child_process import TORCH
from cli_program import MARK_ZH, PAIRS, Call, Scripted, run, start
from locations import SHARED
from scripted_backbone import ENDLESS

from medchat.api import Turn
from medchat.store import SessionStore

pytest_plugins = ("cli_program",)

GOLDENS = Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens"))
REAL_WEIGHTS = GOLDENS / "chatglm" / "v0_realvocab"
REAL_VOCABULARY = SHARED / "tokenizers" / "chatglm-6b-icetk" / "ice_text.model"
REAL_QUESTIONS = SHARED / "data" / "infer.json"


def saved() -> dict[str, list[Turn]]:
    """Return the saved turns of each session, by the session's name or id."""
    with SessionStore.open() as store:
        return {
            record.name or record.id: [item.turn for item in store.turns(record.id)]
            for record in store.list()
        }


# ---------------------------------------------------------------- with a real model


@pytest.mark.torch
def test_each_line_is_answered_on_stdout_alone_and_saved(call: Call, talker: Path) -> None:
    outcome = call(
        "chat", "--model", str(talker), "--greedy", "--history", "none", stdin="\n".join([*PAIRS, ""])
    )
    assert (outcome.code, outcome.out.splitlines()) == (0, list(PAIRS.values()))
    assert outcome.err.count(MARK_ZH) == len(PAIRS)
    (turns,) = saved().values()
    assert {turn.question: turn.answer for turn in turns} == dict(PAIRS)


@pytest.mark.torch
def test_the_model_sees_what_was_said_before_and_with_history_none_it_does_not(
    call: Call, talker: Path
) -> None:
    first, second, *_ = PAIRS
    call("chat", "--model", str(talker), "--greedy", "--session", "一", stdin=f"{first}\n{second}\n")
    call("chat", "-c", "--greedy", "--history", "none", stdin=f"{second}\n")
    (record,) = call("sessions", "list", "--json").one()
    log = call("sessions", "show", record["id"], "--json").one()["log"]
    one, after, alone = (item["prompt_tokens"] for item in log)
    assert one < after and alone < after


@pytest.mark.torch
@pytest.mark.skipif(
    not all(path.exists() for path in (REAL_WEIGHTS, REAL_VOCABULARY, REAL_QUESTIONS)),
    reason="needs the recorded checkpoint, the real vocabulary and the public questions of the shared folder",
)
def test_the_real_vocabulary_chats_for_ten_turns_and_a_kill_between_turns_loses_none(tmp_path: Path) -> None:
    model = tmp_path / "ChatGLM-6B-Med"
    shutil.copytree(REAL_WEIGHTS, model)
    shutil.copy(REAL_VOCABULARY, model)
    records = [json.loads(line) for line in REAL_QUESTIONS.read_text(encoding="utf-8").splitlines()]
    asked = [records[number % len(records)]["instruction"].replace("\n", " ") for number in range(10)]
    flags = ("--backbone", "chatglm", "--model", str(model), "--max-new-tokens", "12", "--seed", "5")
    done = 0
    for end in (6, len(asked)):
        process = start("chat", *flags, *(("-c",) if done else ()), imported=TORCH)
        with process:
            assert process.stdin is not None and process.stderr is not None
            for question in asked[done:end]:
                process.stdin.write(f"{question}\n".encode())
                process.stdin.flush()
                _wait_for_answer(process)
            process.kill()
        done = end
        (turns,) = saved().values()
        assert [turn.question for turn in turns] == asked[:end]
    assert all(turn.finish in ("stop", "length") for turn in turns)


def _wait_for_answer(process: subprocess.Popen[bytes]) -> None:
    """Read stderr up to the mark that follows an answer: a random model's own text may be empty."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line.decode())
        if MARK_ZH in said[-1]:
            return
    pytest.fail("the chat ended: " + "".join(said[-5:]))


# ---------------------------------------------------------------- kills


def test_a_killed_chat_keeps_every_answer_whose_end_was_seen(scripted: Scripted) -> None:
    """Ten turns with a SIGKILL at a random moment after each."""
    seen: list[str] = []
    moments = random.Random(7)
    for number in range(10):
        flags = ("-c",) if number else ()
        with scripted.start("chat", *flags) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"问{number}\n再问{number}\n".encode())
            process.stdin.flush()
            first = process.stdout.readline().decode()
            time.sleep(moments.uniform(0, 0.03))
            process.kill()
            rest = process.stdout.read().decode()
        seen += (first + rest).splitlines(keepends=True)
        with SessionStore.open() as store:
            (record,) = store.list()
        log = scripted.run("sessions", "show", record.id, "--json").one()["log"]
        answers = [item["answer"] for item in log]
        complete = [line.rstrip("\n") for line in seen if line.endswith("\n")]
        assert len(complete) > number and _in_order(complete, answers)
        assert len(answers) <= 2 * (number + 1)
        assert all(item["answer"] == f"你问的是{item['question']}" for item in log)


def _in_order(wanted: Sequence[str], all_of: Sequence[str]) -> bool:
    rest = iter(all_of)
    return all(item in rest for item in wanted)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_during_an_answer_keeps_it_and_all_before(
    scripted: Scripted, number: signal.Signals, code: int
) -> None:
    with scripted.start("chat") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"你好\n{ENDLESS}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == "你问的是你好\n"
        partial = os.read(process.stdout.fileno(), 100)
        process.send_signal(number)
        rest, err = process.communicate(timeout=30)
    assert process.returncode == code and b"Traceback" not in err
    assert saved(), err.decode()
    (turns,) = saved().values()
    assert [turn.question for turn in turns] == ["你好", ENDLESS]
    assert turns[1].answer == (partial + rest).decode().rstrip("\n") and turns[1].finish == "cancelled"


def test_a_reader_that_goes_away_ends_the_chat_quietly(scripted: Scripted) -> None:
    process = scripted.start("chat")
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(f"你好\n{ENDLESS}\n".encode())
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(30) == 0
    assert "Traceback" not in err and "错误" not in err
    process.stdin.close()
    (turns,) = saved().values()
    assert [turn.question for turn in turns] == ["你好", ENDLESS]


# ---------------------------------------------------------------- which session


def ask(scripted: Scripted, question: str, *flags: str) -> None:
    outcome = scripted.run("chat", *flags, stdin=f"{question}\n")
    assert (outcome.code, outcome.out) == (0, f"你问的是{question}\n"), outcome.err


def identities(scripted: Scripted) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scripted.run("sessions", "list", "--json").one()
    return found


def test_a_chat_begins_a_session_continue_goes_on_with_the_latest(scripted: Scripted) -> None:
    ask(scripted, "一")
    ask(scripted, "二")
    ask(scripted, "三", "-c")
    ask(scripted, "四", "--continue")
    assert [[turn.question for turn in turns] for turns in saved().values()] == [["二", "三", "四"], ["一"]]


def test_a_session_is_resumed_by_its_id_its_name_and_the_end_of_its_id(scripted: Scripted) -> None:
    ask(scripted, "一", "--session", "复诊")
    ask(scripted, "别的")
    identity = next(record["id"] for record in identities(scripted) if record["name"] == "复诊")
    for question, reference in (("二", identity), ("三", "复诊"), ("四", identity.split("-")[1])):
        ask(scripted, question, "--resume", reference)
    ask(scripted, "五", "--session", "复诊")
    assert [turn.question for turn in saved()["复诊"]] == ["一", "二", "三", "四", "五"]


def test_resume_without_an_id_lists_what_there_is(scripted: Scripted) -> None:
    ask(scripted, "头痛")
    outcome = scripted.run("chat", "--resume")
    assert outcome.code == 2 and "头痛" in outcome.out
    assert identities(scripted)[0]["id"] in outcome.out and "--resume ID" in outcome.failure()[1]


def test_a_session_brings_its_own_model_and_says_that_it_goes_on(scripted: Scripted) -> None:
    ask(scripted, "一")
    outcome = run("chat", "-c", stdin="二\n", PYTHONPATH=scripted.python_path)
    assert (outcome.code, outcome.out) == (0, "你问的是二\n")
    assert "继续会话" in outcome.err and "1 轮" in outcome.err


def test_an_unsaved_chat_says_so_and_leaves_nothing(scripted: Scripted) -> None:
    outcome = scripted.run("chat", "--no-save", stdin="秘密\n")
    assert outcome.out == "你问的是秘密\n" and "不会保存" in outcome.err
    assert not Path(os.environ["MEDCHAT_HOME"]).exists()


def test_a_chat_of_empty_lines_leaves_no_session(scripted: Scripted) -> None:
    assert scripted.run("chat", stdin="\n  \n").code == 0
    assert identities(scripted) == []


def test_sessions_are_shown_in_full_and_deleted_from_the_disk(scripted: Scripted) -> None:
    ask(scripted, "我的秘密病情")
    ask(scripted, "另一个秘密")
    newer, older = identities(scripted)
    shown = scripted.run("sessions", "show", older["id"])
    assert (
        "问：我的秘密病情" in shown.out and "答：你问的是我的秘密病情" in shown.out and MARK_ZH in shown.out
    )
    deleted = scripted.run("sessions", "delete", older["id"], "--yes")
    assert (deleted.code, deleted.out) == (0, "")
    assert [record["id"] for record in identities(scripted)] == [newer["id"]]
    assert scripted.run("sessions", "delete", "--all", "--yes").code == 0
    left = b"".join(
        path.read_bytes() for path in Path(os.environ["MEDCHAT_HOME"]).rglob("*") if path.is_file()
    )
    assert left and "秘密".encode() not in left


# ---------------------------------------------------------------- the lines


def test_slash_commands_work_and_answer_on_stderr(scripted: Scripted) -> None:
    outcome = scripted.run("chat", stdin="一\n/历史\n/撤销\n二\n/退出\n三\n")
    assert (outcome.code, outcome.out) == (0, "你问的是一\n你问的是二\n")
    assert "你问的是一" in outcome.err
    (turns,) = saved().values()
    assert [turn.question for turn in turns] == ["二"]


def test_a_new_conversation_is_a_new_session(scripted: Scripted) -> None:
    assert scripted.run("chat", stdin="一\n/new\n二\n").code == 0
    assert [[turn.question for turn in turns] for turns in saved().values()] == [["二"], ["一"]]


def test_a_bad_line_is_reported_the_others_answered_and_the_code_is_its(scripted: Scripted) -> None:
    outcome = scripted.run(
        "chat", stdin="一\n".encode() + b"\xff\n" + "二\n".encode(), MEDCHAT_MAX_QUESTION_BYTES="30"
    )
    assert (outcome.code, outcome.out) == (2, "你问的是一\n你问的是二\n")
    long = scripted.run("chat", stdin="长" * 20 + "\n二\n", MEDCHAT_MAX_QUESTION_BYTES="30")
    assert (long.code, long.out) == (2, "你问的是二\n")


@pytest.mark.parametrize(
    ("limit", "said"),
    [("1100000", "超过 1100000 字节"), ("1300000", "token")],
    ids=["still too large", "over the context"],
)
def test_the_size_of_a_question_can_be_raised_for_chat_too(scripted: Scripted, limit: str, said: str) -> None:
    """1.2 MB is over the built-in limit."""
    outcome = scripted.run("chat", stdin="长" * 400_000 + "\n", MEDCHAT_MAX_QUESTION_BYTES=limit)
    assert outcome.code == 2 and said in outcome.err
    assert (limit in outcome.err) == (limit in said)
