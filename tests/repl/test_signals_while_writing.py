"""Signals while a model is loaded, a turn is saved and a file exported: all of it written, the terminal as it was."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from chat_on_disk import sessions
from child_process import command
from cli_program import Scripted
from pseudo_terminal import Terminal, terminal
from scripted_backbone import ENDLESS
from switching_backbone import make
from switching_chat import environment_of, lay_out

from medchat.paths import sessions_file

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.terminal

CTRL_C, CTRL_Z = "\x03", "\x1a"

#: Has a program wait before a file of its own is on the disk for as long as the file HOLD is there.
_SITE = """
import os, pathlib, time

fsync, hold = os.fsync, pathlib.Path(os.environ["HOLD"])

def held(descriptor):
    if hold.exists():
        hold.with_name("reached").touch()
    while hold.exists():
        time.sleep(0.01)
    fsync(descriptor)

os.fsync = held
"""


@pytest.fixture
def held(scripted: Scripted, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a chat whose exports wait for the file `hold` of `tmp_path` to go."""
    (tmp_path / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), scripted.python_path])
    return {
        "HOLD": str(tmp_path / "hold"),
        "PYTHONPATH": path,
        "MEDCHAT_LANG": "zh",
        "TERM": "xterm-256color",
    }


@contextmanager
def on_terminal(scripted: Scripted, environment: dict[str, str], *, shell: bool) -> Iterator[Terminal]:
    """Run a chat, in a shell with its jobs where Ctrl-Z is to be pressed."""
    words = command("chat", *scripted.flags)
    changes = {**os.environ, **environment, "PS1": "shell$ ", "ENV": "/dev/null"}
    alone = ["sh", "-c", 'exec "$@"', "sh", *words]  # an interpreter of its own, which reads sitecustomize
    start = ["sh", "-i"] if shell else alone
    with terminal(scripted.model.parent, command=start, environment=changes, rows=40) as screen:
        if shell:
            screen.wait_for("shell$")
            screen.type(shlex.join(words) + "\n")
        screen.enter("头痛")
        screen.wait_for("你问的是头痛")
        screen.wait_for_prompt()
        yield screen


def begin_export(screen: Terminal, tmp_path: Path) -> Path:
    """Type an export and return its file once it is being written."""
    (tmp_path / "hold").touch()
    target = tmp_path / "头痛.json"
    screen.type(f"/导出 {target}\r")
    screen.wait((tmp_path / "reached").exists, "the export under way")
    assert not target.exists()
    return target


@contextmanager
def saving(screen: Terminal) -> Iterator[None]:
    """Within this block a turn, stopped in the middle, waits to be saved."""
    screen.enter(ENDLESS)
    screen.wait_for("水水")
    with closing(sqlite3.connect(sessions_file(), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # another program is writing
        screen.type(CTRL_C)
        screen.wait_until_taken()
        yield
        other.execute("ROLLBACK")


def through_all_that_ends_nothing(screen: Terminal, before: list[object]) -> None:
    """Press Ctrl-C, change the window's size, and suspend the chat and continue with it."""
    screen.type(CTRL_C)
    screen.resize(60, 40)
    screen.type(CTRL_Z)
    screen.wait_for("Stopped")
    assert screen.attributes() == before
    assert not screen.screen.cursor.hidden
    screen.type("fg\n")


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 143), pytest.param("SIGHUP", 129, marks=pytest.mark.slow)]
)
def test_a_signal_to_end_waits_for_the_export(
    scripted: Scripted, held: dict[str, str], tmp_path: Path, name: str, code: int
) -> None:
    with on_terminal(scripted, held, shell=False) as screen:
        target = begin_export(screen, tmp_path)
        screen.process.send_signal(getattr(signal, name))
        (tmp_path / "hold").unlink()
        assert screen.exit_code() == code
        assert screen.attributes() == screen.attributes_before
    assert json.loads(target.read_text(encoding="utf-8"))["log"][0]["answer"] == "你问的是头痛"
    assert not [*tmp_path.glob(".*.partial")]


def test_ctrl_c_a_new_size_and_ctrl_z_leave_an_export_whole(
    scripted: Scripted, held: dict[str, str], tmp_path: Path
) -> None:
    with on_terminal(scripted, held, shell=True) as screen:
        target = begin_export(screen, tmp_path)
        through_all_that_ends_nothing(screen, screen.attributes_before)
        (tmp_path / "hold").unlink()
        screen.wait_for("已导出：")
        screen.enter("还在")
        screen.wait_for("你问的是还在")
        assert json.loads(target.read_text(encoding="utf-8"))["log"][0]["answer"] == "你问的是头痛"


@pytest.mark.parametrize(
    ("name", "code"), [pytest.param("SIGTERM", 143, marks=pytest.mark.slow), ("SIGHUP", 129)]
)
def test_a_signal_to_end_waits_for_a_turn_that_is_being_saved(
    scripted: Scripted, held: dict[str, str], name: str, code: int
) -> None:
    with on_terminal(scripted, held, shell=False) as screen:
        with saving(screen):
            screen.process.send_signal(getattr(signal, name))
        assert screen.exit_code() == code
        assert screen.attributes() == screen.attributes_before
    assert sessions() == {"头痛": ["头痛", ENDLESS]}


def test_ctrl_c_a_new_size_and_ctrl_z_leave_a_turn_that_is_being_saved(
    scripted: Scripted, held: dict[str, str]
) -> None:
    with on_terminal(scripted, held, shell=True) as screen:
        with saving(screen):
            through_all_that_ends_nothing(screen, screen.attributes_before)
        screen.enter("还在")
        screen.wait_for("你问的是还在")
        screen.wait_for_prompt()
    assert sessions() == {"头痛": ["头痛", ENDLESS, "还在"]}


def test_a_new_size_and_ctrl_z_leave_the_loading_of_a_model_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    words = shlex.join(command("chat", "--model", "one"))
    environment = {**os.environ, **environment_of(tmp_path), "PS1": "shell$ ", "ENV": "/dev/null"}
    with terminal(tmp_path, command=["sh", "-i"], environment=environment, rows=40) as screen:
        screen.wait_for("shell$")
        before = screen.attributes()
        screen.type(f"cd {shlex.quote(str(tmp_path))} && {words}\n")
        screen.enter("/模型 slow")
        screen.wait_for("模型加载中… ██")
        screen.resize(60, 40)
        screen.type(CTRL_Z)
        screen.wait_for("Stopped")
        assert screen.attributes() == before
        screen.type("fg\n")
        screen.wait(
            lambda: [row for row in screen.shown() if row][-1].startswith("模型加载中… ██"), "the bar again"
        )
        screen.type(CTRL_C)
        screen.wait_for("已取消加载。")
        screen.enter("头痛")
        screen.wait_for("one：头痛")
        screen.enter("/退出")
        screen.wait(lambda: screen.cursor_row().startswith("shell$"), "the shell")
        assert screen.attributes() == before
