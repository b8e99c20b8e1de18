"""Paths that a user types: what no file can be called is refused, in every command, and never a defect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_program import run
from hypothesis import given
from hypothesis import strategies as st

from medchat.errors import UsageError
from medchat.user_paths import user_path

LONG_NAME = "长" * 90  # 270 bytes
LONG_PATH = "/".join(["d" * 200] * 25)


@given(st.text(st.characters(codec=None), max_size=300))
def test_what_comes_out_can_be_asked_of_the_system(text: str) -> None:
    try:
        path = user_path(text)
    except UsageError:
        return
    path.exists()


@pytest.mark.parametrize("text", [LONG_NAME, f"a/{LONG_NAME}/b", LONG_PATH, "a\0b", "a\ud800b"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        user_path(text)


def test_the_longest_name_home_and_bytes_that_are_no_utf_8_are_taken() -> None:
    assert user_path("n" * 255).name == "n" * 255
    assert user_path("~/x") == Path.home() / "x"
    assert user_path("~no-such-user-here/x") == Path("~no-such-user-here/x")
    assert os.fsencode(user_path(os.fsdecode(b"\xff"))) == b"\xff"


@pytest.mark.parametrize("name", [LONG_NAME, LONG_PATH, "~no-such-user-here/x"])
@pytest.mark.parametrize(
    "words",
    [
        ("ask", "问", "--model"),
        ("ask", "问", "--backbone", "chatglm", "--adapter"),
        ("ask", "问", "--backbone", "chatglm", "--template"),
        ("models", "show"),
        ("models", "verify"),
        ("compare",),
        ("infer", "--model", "x", "--backbone", "chatglm", "--output", "o", "--data"),
        ("sft", "--config"),
        ("sft", "--model", "x", "--backbone", "chatglm", "--output", "o", "--data"),
        ("sft", "--resume", "--output"),
    ],
)
def test_no_command_takes_such_a_name_for_a_defect(words: tuple[str, ...], name: str) -> None:
    outcome = run(*words, name)
    assert outcome.code in (2, 3, 6), outcome.err
    assert "错误：" in outcome.err and "内部错误" not in outcome.err, outcome.err


@pytest.mark.parametrize("home", [LONG_NAME, LONG_PATH])
def test_a_home_of_such_a_name_is_refused(home: str, tmp_path: Path) -> None:
    outcome = run("sessions", "list", MEDCHAT_HOME=str(tmp_path / home))
    assert outcome.code == 2 and "太长" in outcome.err and "内部错误" not in outcome.err
