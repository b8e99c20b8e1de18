"""Native code of a plugin that keeps the main thread: no signal handler of Python's runs, and the program is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from careless_plugins import DISTRIBUTION, Careless, Installed, path_with
from child_process import child_environment, command
from cli_program import Call, saved_turns, start
from pseudo_terminal import Terminal, terminal

from medchat.cli.stuck import PATIENCE, PROMPT, SECOND_WISH

pytest_plugins = ("cli_program", "plugin_sites")

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

#: A lock that is taken twice: the second time C code waits for ever, whatever signal comes. Echo is off by then.
STUCK = """
import ctypes, termios

def stuck():
    try:
        settings = termios.tcgetattr(0)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, settings)
    except termios.error:
        pass
    native, lock = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    native.pthread_mutex_init(lock, None)
    native.pthread_mutex_lock(lock)
    Path('stuck').touch()
    native.pthread_mutex_lock(lock)
"""
_ANSWER = "def stream(self, s, c, e):\n    yield Delta('多', 1, 4)\n    stuck()"
PLUGINS = {
    "ask": Careless("stream", _ANSWER, module=STUCK),
    "ask, loading": Careless("load", backbone="def load(self, options): stuck()", module=STUCK),
    "infer": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): stuck()",
        module=STUCK,
        verb="infer",
    ),
    "sft": Careless("recipe.run", recipe="def run(self, d, o, w): stuck()", module=STUCK, verb="sft"),
    "sft, looking at the data": Careless(
        "recipe.survey", recipe="def survey(self, d, o): stuck()", module=STUCK, verb="sft"
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wait_until_stuck(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not Path("stuck").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)


def stderr_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return process.stderr.read().decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_native_code_that_never_returns_is_left_with_what_was_said(
    number: signal.Signals, folder: Path, site: Path, call: Call
) -> None:
    """In a tenth of the time; the slow test below takes it all."""
    hurry = "from medchat.cli import stuck as times\ntimes.PROMPT, times.SECOND_WISH = 0.1, 0.2\n"
    installed = Installed(Careless("stream", _ANSWER, module=hurry + STUCK), site, call)
    with start(*installed.words(), PYTHONPATH=path_with(site)) as process:
        wait_until_stuck(process)
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == CODES[number]
        said = stderr_of(process)
    first, *_, last, remedy = [line for line in said.splitlines() if DISTRIBUTION in line]
    assert "stream: " in first and "再按一次 Ctrl-C" in first
    assert last.startswith("错误：") and "stream: " in last and remedy.startswith("下一步：")
    (saved,) = saved_turns()
    assert (saved.turn.answer, saved.turn.finish) == ("多", "cancelled")


@pytest.fixture(params=list(PLUGINS))
def stuck(
    request: pytest.FixtureRequest, folder: Path, site: Path, call: Call
) -> Iterator[tuple[Careless, Terminal]]:
    """The program on a terminal, stuck in a plugin's native code."""
    plugin = PLUGINS[request.param]
    installed = Installed(plugin, site, call)
    environment = child_environment(PYTHONPATH=path_with(site), TERM="xterm-256color", MEDCHAT_LANG="zh")
    words = command(*installed.words())
    with terminal(folder, command=words, environment=environment, columns=200) as screen:
        wait_until_stuck(screen.process)
        assert screen.attributes() != screen.attributes_before
        yield plugin, screen


@pytest.mark.slow
@pytest.mark.terminal
@pytest.mark.parametrize("number", CODES)
def test_stuck_native_code_is_left_at_the_second_signal_and_the_terminal_restored(
    number: signal.Signals, stuck: tuple[Careless, Terminal]
) -> None:
    plugin, screen = stuck
    if number is signal.SIGINT:
        screen.type("\x03")
    else:
        screen.process.send_signal(number)
    screen.wait_for("再按一次 Ctrl-C")
    assert screen.process.poll() is None
    time.sleep(SECOND_WISH - PROMPT + 0.1)
    if number is signal.SIGINT:
        screen.type("\x03")
    else:
        screen.process.send_signal(number)
    assert screen.exit_code() == CODES[number]
    screen.wait_for(f"{plugin.where}: ", DISTRIBUTION, "下一步：")
    assert screen.attributes() == screen.attributes_before
    text = "\n".join(screen.everything())
    assert "Traceback" not in text and "内部错误" not in text
    if plugin is PLUGINS["ask"]:
        (saved,) = saved_turns()
        assert (saved.turn.answer, saved.turn.finish) == ("多", "cancelled")
    if plugin.verb == "infer":
        assert "--resume" in text
    if plugin is PLUGINS["sft"]:
        assert "还没有保存过检查点" in text


@pytest.mark.slow
@pytest.mark.terminal
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_alone_leaves_stuck_code_in_time_but_not_a_step_of_training(
    number: signal.Signals, stuck: tuple[Careless, Terminal]
) -> None:
    plugin, screen = stuck
    screen.process.send_signal(number)
    time.sleep(PATIENCE - 1)
    assert screen.process.poll() is None
    if plugin is PLUGINS["sft"]:
        time.sleep(3)
        assert screen.process.poll() is None
    else:
        assert screen.exit_code(6) == CODES[number]
        assert screen.attributes() == screen.attributes_before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_signal_of_the_system_also_leaves_python_that_only_sleeps(
    number: signal.Signals, folder: Path, site: Path, call: Call
) -> None:
    sleeping = _ANSWER.replace("stuck()", "Path('stuck').touch(); __import__('time').sleep(60)")
    installed = Installed(Careless("stream", sleeping), site, call)
    with start(*installed.words(), PYTHONPATH=path_with(site)) as process:
        wait_until_stuck(process)
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(PATIENCE + 6) == CODES[number]
        assert time.monotonic() - began > PATIENCE - 1
    assert saved_turns()[0].turn.answer == "多"


FORK = """
import os, signal, sys, time
from medchat.cli import stuck
from medchat.cli.signals import stop_on_signals
stuck.PROMPT, stuck.SECOND_WISH = 0.1, 0.2
with stop_on_signals():
    child = os.fork()
    if not child:
        time.sleep(20)
    for _ in range(2):
        os.kill(child, signal.SIGTERM)
        time.sleep(0.3)
    os.waitpid(child, 0)
print("alive", stuck.NotedHandler.called_at)
"""


def test_signals_of_a_forked_process_are_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=child_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive -inf\n"), done.stderr


def test_the_watch_leaves_nothing_behind(call: Call) -> None:
    before = signal.set_wakeup_fd(-1)
    files = open_files()
    for _ in range(3):
        assert call("config", "path").code == 0
    assert signal.set_wakeup_fd(before) == -1
    assert open_files() == files


def open_files() -> int:
    """Return how many files this process has open, where the system tells."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0
