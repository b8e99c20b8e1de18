"""The interpreters that tests start: their environment, and starting them with modules already imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fork_server import ForkServer, own_terminal
from locations import ROOT

#: The path on which a child process finds MedChat if it is not installed.
SOURCES = [str(path) for path in (ROOT, *sorted((ROOT / "plugins").iterdir()), ROOT / "tests" / "support")]

#: The modules whose imports the interpreters of `start_python` have done already.
PROGRAM, TORCH = "preloaded_program", "preloaded_torch"

#: The prefixes of the variables that an interpreter reads at its start, and these modules at their import.
#: Without those that the program sets itself before it imports torch.
_BY_PYTHON = ("LANG", "LC_", "PYTHON", "LD_", "MALLOC_")
_READ_ONCE = {
    PROGRAM: _BY_PYTHON,
    TORCH: (*_BY_PYTHON, "OMP_NUM_THREADS", "MKL_", "TORCH", "HF_"),
}

#: Variables that no child inherits: a shell's language and streams, and what torch sets in this process once some of
#: its modules are imported. A fork server was started before that.
_LEFT_OUT = (
    *("LC_ALL", "LC_MESSAGES", "PYTHONIOENCODING", "PYTHONUTF8", "NO_COLOR"),
    "TORCHINDUCTOR_CACHE_DIR",
)


def child_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a child: this one (with the test's MEDCHAT_HOME), a neutral locale, `changes`."""
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    path = os.pathsep.join([*SOURCES, kept.pop("PYTHONPATH", "")]).rstrip(os.pathsep)
    neutral = {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return {**kept, **neutral, **changes}


def command(*arguments: str) -> list[str]:
    """Return the command line that runs the program with `arguments`."""
    return [sys.executable, "-m", "medchat", *arguments]


def start_python(
    *arguments: str,
    environment: Mapping[str, str],
    imported: str = PROGRAM,
    on_terminal: bool = False,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start `python ARGUMENTS` (`-m MODULE …` or `-c CODE …`) in a process of its own that has `imported` already.

    For an environment that changes the interpreter itself a new one is started. `on_terminal`: in a session
    that the terminal on stdin controls. `options` are Popen's.
    """
    server = _server(imported)
    prefixes = _READ_ONCE[imported]
    if _chosen(environment, prefixes) == _chosen(server.environment, prefixes):
        return server.popen(arguments, env=environment, start_new_session=on_terminal, **options)
    first = own_terminal if on_terminal else None
    return subprocess.Popen([sys.executable, *arguments], env=dict(environment), preexec_fn=first, **options)


def run_python(
    *arguments: str,
    environment: Mapping[str, str],
    imported: str = PROGRAM,
    stdin: bytes = b"",
    cwd: Path | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run `python ARGUMENTS` to its end, its streams piped; see `start_python`."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start_python(*arguments, environment=environment, imported=imported, cwd=cwd, **pipes) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _chosen(environment: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return the variables with these prefixes. PYTHONPATH is read once too, but every fork gets its own."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(prefixes) and name != "PYTHONPATH"
    }


@cache
def _server(imported: str) -> ForkServer:
    return ForkServer([imported], _USUAL)


#: The environment at import: before a test has changed anything.
_USUAL = child_environment()
