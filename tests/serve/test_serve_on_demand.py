"""A server that `ask --server auto` starts: one for all that ask, found by its lock, ended when nobody asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli_program import FULL_ZH, Call, Scripted
from medchat_serve.announcement import announced_in
from medchat_serve.app import Service
from medchat_serve.server import StoppableServer, bound_socket
from served_model import SECONDS, question, serving
from test_serve_command import started

from medchat.commands.ask_server import RunningServer, running_server
from medchat.errors import UsageError
from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model",)

TOKEN = "a-token-of-the-tests"


def test_a_server_is_found_while_it_runs_and_what_a_killed_one_left_is_not(tmp_path: Path) -> None:
    file = tmp_path / "address"
    assert running_server(file) is None
    file.write_text('{"url": "http://127.0.0.1:1", "token": "left", "pid": 1}', encoding="utf-8")
    file.chmod(0o644)
    assert running_server(file) is None
    with announced_in(file) as announcement:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and not file.read_bytes()
        threading.Timer(0.1, announcement.publish, ("http://127.0.0.1:2", TOKEN)).start()
        assert running_server(file) == RunningServer("http://127.0.0.1:2", TOKEN, os.getpid())
    assert running_server(file) is None and not file.exists()


def test_a_file_that_another_server_holds_or_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medchat_serve.announcement.LOCK_PAUSE", 0.0)
    file, linked = tmp_path / "address", tmp_path / "link"
    linked.symlink_to(tmp_path / "elsewhere")
    with announced_in(file) as announcement:
        announcement.publish("http://127.0.0.1:2", TOKEN)
        with pytest.raises(UsageError, match="--announce"), announced_in(file):
            pass
        assert json.loads(file.read_text(encoding="utf-8"))["token"] == TOKEN
    os.mkfifo(tmp_path / "pipe")
    for place in (linked, tmp_path / "pipe", tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(UsageError, match="--announce"), announced_in(place):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_server_ends_after_its_idle_time_and_not_while_a_question_is_under_way(
    scripted_model: OpenedModel,
) -> None:
    service = Service(scripted_model, "served")
    with bound_socket("127.0.0.1", 0) as listening:
        server = StoppableServer(service, most_idle=0.2)
        began = time.monotonic()
        asyncio.run(server.serve([listening]))
        assert 0.2 < time.monotonic() - began < SECONDS
    assert service.dispatcher.close(SECONDS)
    with serving(scripted_model) as served, served.streaming(question("没完")) as stream:
        next(stream)
        assert served.service.dispatcher.idle_seconds == 0.0


@pytest.mark.parametrize("flag", [("--idle", "0"), ("--idle", "soon"), ("--announce", "/no/such/folder/x")])
def test_a_wrong_flag_is_refused_before_anything_is_loaded(
    call: Call, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, str]
) -> None:
    monkeypatch.syspath_prepend(str(scripted.site))
    outcome = call("serve", "--port", "0", *flag, *scripted.flags)
    assert outcome.code == 2 and flag[0] in outcome.failure()[0]


# ---------------------------------------------------------------- as programs


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Give a MEDCHAT_HOME whose servers are ended."""
    folder = tmp_path / "home"
    yield folder
    for server in servers_in(folder):
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)


def servers_in(home: Path) -> list[RunningServer]:
    found = map(running_server, sorted((home / "cache" / "servers").glob("*/address")))
    return [server for server in found if server is not None]


def wait_until_none_runs(home: Path) -> None:
    end = time.monotonic() + SECONDS
    while servers_in(home):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_two_that_ask_at_once_start_one_server_and_later_ones_use_it(scripted: Scripted, home: Path) -> None:
    asking = [
        scripted.start("ask", text, "--server", "auto", MEDCHAT_HOME=str(home)) for text in ("头痛", "发热")
    ]
    said = [process.communicate(timeout=60) for process in asking]
    assert sorted(out.decode() for out, _ in said) == ["你问的是发热\n", "你问的是头痛\n"], said
    shown = "".join(err.decode() for _, err in said)
    assert shown.count("正在后台启动") == 1 and shown.count(FULL_ZH) == 1
    (server,) = servers_in(home)
    assert server.token not in shown and f"kill {server.pid}" in shown
    (address,) = (home / "cache" / "servers").glob("*/address")
    assert stat.S_IMODE(address.stat().st_mode) == 0o600

    later = scripted.run("ask", "咳嗽", "--server", "auto", MEDCHAT_HOME=str(home))
    assert later.out == "你问的是咳嗽\n" and "正在后台启动" not in later.err
    os.kill(server.pid, signal.SIGKILL)
    wait_until_none_runs(home)
    assert address.exists()
    again = scripted.run("ask", "咳嗽", "--server", "auto", MEDCHAT_HOME=str(home))
    assert again.out == "你问的是咳嗽\n" and "正在后台启动" in again.err
    (second,) = servers_in(home)
    assert second.token != server.token
    os.kill(second.pid, signal.SIGTERM)
    wait_until_none_runs(home)
    assert not address.exists()


@pytest.mark.slow
def test_a_server_that_does_not_start_is_quoted_and_leaves_nothing_running(
    scripted: Scripted, home: Path
) -> None:
    (scripted.model / "broken").touch()
    outcome = scripted.run("ask", "头痛", "--server", "auto", MEDCHAT_HOME=str(home))
    what, remedy = outcome.failure()
    assert outcome.code != 0 and "broken" in what and "medchat models show" in remedy
    assert not servers_in(home)


@pytest.mark.slow
def test_another_model_gets_a_server_of_its_own(scripted: Scripted, home: Path) -> None:
    scripted.run("ask", "头痛", "--server", "auto", MEDCHAT_HOME=str(home))
    scripted.run("ask", "头痛", "--server", "auto", "--dtype", "float32", MEDCHAT_HOME=str(home))
    assert len(servers_in(home)) == 2


@pytest.mark.slow
def test_the_program_ends_by_itself_with_code_0(scripted: Scripted, tmp_path: Path) -> None:
    file = tmp_path / "address"
    with started(scripted, "--idle", "1", "--announce", str(file)) as (process, url, _):
        assert process.wait(SECONDS) == 0
        assert url and not file.exists()
