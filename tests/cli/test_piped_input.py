"""What is typed and piped into `medchat ask`: dashes, slips, and a context beside the question."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from child_process import child_environment, command
from cli_program import Outcome, Scripted, run

pytest_plugins = ("cli_program",)


@pytest.mark.parametrize("word", ["-发烧怎么办", "- 头痛怎么办？", "--头痛", "-fever?", "-'引号'"])
def test_a_question_that_is_taken_for_an_option_is_answered_with_the_command_that_asks_it(
    scripted: Scripted, word: str
) -> None:
    refused = scripted.run("ask", word, "--greedy")
    _, remedy = refused.failure()
    assert refused.code == 2 and "ask" in remedy
    _, _, proposed = remedy.partition("medchat ask ")
    again = run("ask", *scripted.flags, *shlex.split(proposed), PYTHONPATH=scripted.python_path)
    assert again.out == f"你问的是{word}\n"


def test_a_slip_of_an_option_is_still_answered_with_the_option(scripted: Scripted) -> None:
    _, remedy = scripted.run("ask", "头痛", "--temprature", "1").failure()
    assert "--temperature" in remedy and " -- " not in remedy


# ---------------------------------------------------------------- context from a pipe or a file


def asked_with(scripted: Scripted, stdin: Any, *more: str) -> Outcome:
    done = subprocess.run(
        command("ask", "怎么办？", *scripted.flags, *more),
        stdin=stdin,
        capture_output=True,
        env=child_environment(PYTHONPATH=scripted.python_path),
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("typed", ["血压 180/110", "\ufeff血压 180/110\r\n", "\n血压 180/110\n\n"])
def test_what_is_piped_in_beside_a_question_is_its_context(scripted: Scripted, typed: str) -> None:
    outcome = scripted.run("ask", "怎么办？", stdin=typed)
    assert outcome.out == "你问的是怎么办？\n\n血压 180/110\n"
    assert "从标准输入读了 10 个字" in outcome.err


def test_a_file_is_context_from_where_it_stands(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "lab.txt").write_text("第一行\n白细胞 12\n", encoding="utf-8")
    with (tmp_path / "lab.txt").open("rb", buffering=0) as file:
        os.lseek(file.fileno(), len("第一行\n".encode()), os.SEEK_SET)
        assert asked_with(scripted, file).out == "你问的是怎么办？\n\n白细胞 12\n"


@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_an_empty_input_is_no_context_and_nothing_is_said_of_it(scripted: Scripted, content: str) -> None:
    outcome = scripted.run("ask", "怎么办？", stdin=content)
    assert outcome.out == "你问的是怎么办？\n" and "标准输入" not in outcome.err


def test_a_device_or_a_closed_input_is_no_context(scripted: Scripted) -> None:
    # What a machine lets an ordinary user read.
    devices = [Path(name) for name in ("/dev/null", "/dev/zero") if os.access(name, os.R_OK)]
    assert devices
    for device in devices:
        with device.open("rb") as stdin:
            outcome = asked_with(scripted, stdin)
        assert outcome.out == "你问的是怎么办？\n" and "标准输入" not in outcome.err
    closed = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *command("ask", "怎么办？", *scripted.flags)],
        capture_output=True,
        env=child_environment(PYTHONPATH=scripted.python_path),
        timeout=60,
        check=False,
    )
    assert closed.stdout.decode() == "你问的是怎么办？\n"


def test_a_pipe_that_stays_open_and_silent_is_not_waited_for(scripted: Scripted) -> None:
    reading, writing = os.pipe()
    try:
        outcome = asked_with(scripted, reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert outcome.out == "你问的是怎么办？\n" and "</dev/null" in outcome.err


def test_a_context_that_comes_a_little_later_and_in_pieces_is_read_whole(scripted: Scripted) -> None:
    slow = subprocess.Popen(
        ["sh", "-c", "sleep 0.4; printf 血压; sleep 0.7; printf 高"], stdout=subprocess.PIPE
    )
    assert slow.stdout is not None
    assert asked_with(scripted, slow.stdout).out == "你问的是怎么办？\n\n血压高\n"
    slow.stdout.close()
    assert slow.wait() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [("感冒".encode("gb18030"), "iconv"), ("长".encode() * (1 << 19), "max_question_bytes")],
)
def test_a_context_that_cannot_be_asked_ends_with_2_before_the_model_is_loaded(
    scripted: Scripted, content: bytes, said: str
) -> None:
    refused = scripted.run("ask", "怎么办？", stdin=content)
    assert refused.code == 2 and refused.out == "" and said in "\n".join(refused.failure())


@pytest.mark.parametrize("name", ["corpus", "speak", "train", "history"])
def test_an_unknown_command_is_not_answered_with_one_of_another_meaning(name: str) -> None:
    for words in ((name,), ("sessions", name)):
        what, remedy = run(*words).failure()
        assert name in what and remedy.endswith("--help")


@pytest.mark.parametrize(
    ("typed", "meant"), [("chta", "chat"), ("aks", "ask"), ("Modles", "models"), ("conf", "config")]
)
def test_a_slip_of_a_command_is_answered_with_the_command(typed: str, meant: str) -> None:
    _, remedy = run(typed).failure()
    assert f"medchat {meant}" in remedy
