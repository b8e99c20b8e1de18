"""Signals that come while the program is still being imported, and signals that were turned off."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child_process import child_environment
from cli_program import PAIRS

pytest_plugins = ("cli_program",)

QUESTION = next(iter(PAIRS))

#: Runs the program as its start script does; sends itself a signal when a certain module begins to be imported.
PROGRAM = """
import os, sys
module, number = sys.argv[1], int(sys.argv[2])
class Interrupter:
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Interrupter())
sys.argv[1:] = sys.argv[3:]
from medchat.__main__ import main
if __name__ == '__main__':
    sys.exit(main())
"""


def interrupted(
    module: str, number: int, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, module, str(number), *arguments],
        env=child_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "module",
    [
        "medchat.language",
        "medchat.cli.front",
        "medchat.cli.output",
        "medchat.cli.program",
        "click",
        "medchat.settings",
        "tomllib",
        "medchat.commands.ask",
        "medchat.registry.loading",
    ],
)
def test_ctrl_c_in_the_middle_of_any_import_is_quiet(module: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('device = "cpu"\n', encoding="utf-8")
    ended = interrupted(
        module, signal.SIGINT, "ask", QUESTION, "--model", str(tmp_path), MEDCHAT_HOME=str(tmp_path)
    )
    assert (ended.returncode, ended.stdout) == (130, "")
    assert "Traceback" not in ended.stderr and "内部错误" not in ended.stderr, ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("module", ["medchat.cli.front", "click", "medchat.commands.sessions"])
def test_other_signals_end_an_import_with_their_code(module: str, number: int, code: int) -> None:
    ended = interrupted(module, number, "sessions", "list")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")


@pytest.mark.torch
@pytest.mark.parametrize(
    "module",
    [
        "torch._C",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("torch", "transformers", "safetensors.torch")
        ),
    ],
)
def test_ctrl_c_in_the_middle_of_a_heavy_import_is_quiet(module: str, talker: Path) -> None:
    ended = interrupted(module, signal.SIGINT, "ask", QUESTION, "--model", str(talker), "--no-save")
    assert (ended.returncode, ended.stdout) == (130, "")
    assert "Traceback" not in ended.stderr and "错误" not in ended.stderr, ended.stderr


def test_a_signal_that_nohup_turned_off_ends_nothing() -> None:
    """As `nohup medchat …` and a script's `medchat … &` start it."""
    ignoring = (
        "import os, signal, sys\nfor name in ('SIGHUP', 'SIGINT'):\n signal.signal(signal.Signals[name],"
    )
    ignoring += " signal.SIG_IGN)\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    for number in (signal.SIGHUP, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-c", ignoring, "-c", PROGRAM, "click", str(int(number)), "sessions", "list"],
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and b"Traceback" not in err
