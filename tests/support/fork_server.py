"""An interpreter that has imported much and is forked for each run, so that no run waits for its imports.

A test has the program do little; starting an interpreter and importing what it needs (torch, transformers and peft
above all) takes most of the time. Each fork is a process of its own: it has its own streams, environment and folder,
may be killed, and ends as any interpreter does. The server computes nothing and runs no thread.

    python fork_server.py LISTENER LIFELINE MODULE...    both are open files; when LIFELINE closes, it ends
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ForkServer:
    """Runs `python ARGUMENTS` in forks of an interpreter that was started in `environment` and imported `modules`."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        self._address = str(Path(self._folder.name, "socket"))
        lifeline, self._held = os.pipe()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen()
            numbers = (listener.fileno(), lifeline)
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, numbers), *modules],
                stdin=subprocess.DEVNULL,
                env=self.environment,
                pass_fds=numbers,
            )
        os.close(lifeline)
        atexit.register(self._close)

    def _close(self) -> None:
        os.close(self._held)
        self._process.wait()
        self._folder.cleanup()

    def popen(
        self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, **streams: Any
    ) -> subprocess.Popen[Any]:
        """Start `-m MODULE …` or `-c CODE …`; `streams` are those of Popen, `text` and the like among them.

        With `start_new_session` a terminal on stdin becomes the one that controls the session.
        """
        return _ForkedPopen(self._address, list(arguments), env=dict(env), cwd=cwd, **streams)


class _ForkedPopen(subprocess.Popen[Any]):
    """A process that is the server's child and not ours: started and waited for through the server."""

    def __init__(self, address: str, arguments: list[str], **options: Any) -> None:
        self._address = address
        super().__init__(arguments, **options)

    def _execute_child(self, args: list[str], *given: Any) -> None:
        cwd, environment, pipes, session = given[4], given[5], given[9:15], given[20]
        theirs = (pipes[0], pipes[3], pipes[5])
        streams = [number if end == -1 else end for number, end in enumerate(theirs)]
        request = {
            "arguments": args,
            "environment": environment,
            "cwd": str(cwd or Path.cwd()),
            "session": session,
        }
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._connection.connect(self._address)
            socket.send_fds(self._connection, [b"\n"], streams)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            self._answers = self._connection.makefile("r")
            self.pid = int(self._answers.readline())
        except (OSError, ValueError) as error:
            self._connection.close()
            raise RuntimeError("the fork server has ended; the error of its imports is on stderr") from error
        finally:
            self._close_pipe_fds(*pipes)
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Return what `os.waitpid` would."""
        if wait_flags == os.WNOHANG and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        with self._connection, self._answers:
            return self.pid, int(self._answers.readline())

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with self._waitpid_lock:
            if self.returncode is None:
                ended, status = self._try_wait(os.WNOHANG)
                if ended:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


# ---------------------------------------------------------------- the server


def _serve(listener: socket.socket, lifeline: int) -> dict[str, Any]:
    """Fork for each request; return it in the fork that is to be the interpreter, and nowhere else."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the interpreters
    while True:
        if lifeline in select.select([listener, lifeline], [], [])[0]:
            os._exit(0)
        connection, _ = listener.accept()
        with connection:
            if os.fork():
                continue
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            os.close(lifeline)
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile("rw") as file:
                request = json.loads(file.readline())
                process = os.fork()
                if process:
                    for number in streams:
                        os.close(number)
                    _report(process, file)
            _take(streams)
            if request.pop("session"):
                own_terminal()
            return request


def own_terminal() -> None:
    """Begin a session of its own in this process, controlled by the terminal on stdin, if that is one."""
    os.setsid()
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _take(streams: Sequence[int]) -> None:
    """Make these three the standard streams, with the encodings that this interpreter has chosen."""
    for number, (name, given) in enumerate(zip(("stdin", "stdout", "stderr"), streams, strict=True)):
        os.dup2(given, number)
        os.close(given)
        was = getattr(sys, name)
        stream = os.fdopen(
            number,
            "w" if number else "r",
            1 if name == "stderr" else -1,
            encoding=was.encoding,
            errors=was.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _report(process: int, file: Any) -> None:
    """Say the process's number and, when it has ended, its status as `waitpid` gives it; then end."""
    file.write(f"{process}\n")
    file.flush()
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        file.write(f"{status}\n")
        file.flush()
    os._exit(0)


def _become(arguments: list[str], environment: Mapping[str, str], cwd: str) -> None:
    """Be `python ARGUMENTS` in that environment and folder."""
    own = [__file__.rpartition("/")[0], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    beyond = [path for path in sys.path if path not in own]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    flag, what, *rest = arguments
    first = cwd if flag == "-m" else ""
    sys.path[:] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *beyond]
    importlib.invalidate_caches()
    sys.argv[:] = [flag, *rest]
    if flag == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def main() -> None:
    """Import, then serve."""
    listener, lifeline, *modules = sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _become(**_serve(socket.socket(fileno=int(listener)), int(lifeline)))


if __name__ == "__main__":
    main()
