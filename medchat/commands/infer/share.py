"""One process's share of a job, wherever it runs: what it is given, and what it reports of its work.

Knows no launcher: whoever places processes on other machines (Ray) makes a `ShareWorker` there, starts it, and
asks it again and again for news. It is an ordinary process of the division of work: it appends to its own part
of the result file, and continues what a killed one left there.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.cli.program import DEFECT, exit_code_of
from medchat.commands.infer.job import InferJob
from medchat.errors import MedchatError
from medchat.language import say, set_language
from medchat.launcher import Process
from medchat.sanitize import sanitize_line

#: The value of `--ray` without an address: Ray is started on this machine.
LOCAL = "local"
#: Seconds that `news` waits for something to say.
NEWS_SECONDS = 1.0


@dataclass(frozen=True)
class Share:
    """What process `process` is to answer. `data`, `output` and `flags` are those of the command.

    `folder` is the working directory and `environment` the variables that count; `facts` are those of the job where
    it was started. `mark` is a file beside the result file, of a name that no other run has: who sees it shares the
    folder.
    """

    data: str
    output: str
    flags: Mapping[str, Any]
    process: Process
    folder: str
    environment: Mapping[str, str]
    language: str
    debug: bool
    facts: Mapping[str, str]
    mark: Path

    def answer(self) -> int:
        """Answer the share and return the exit code.

        Raises MedchatError where this machine does not see the same files and settings, and what answering raises.
        """
        here = False
        with suppress(OSError):
            os.chdir(self.folder)
            here = self.mark.is_file()
        if not here:
            raise MedchatError(
                say(
                    f"{socket.gethostname()} 上看不到同一个输出目录",
                    f"{socket.gethostname()} does not see the same output folder",
                ),
                say(
                    "数据、模型和结果须在各台机器共享的目录里，路径相同",
                    "data, model and results belong in a folder that all machines share, under the same path",
                ),
                where=str(self.mark.parent),
            )
        job = InferJob.read(self.data, self.output, self.flags, self.process, speak=False)
        self._require_same(job.facts())
        return job.answer()

    def _require_same(self, found: Mapping[str, str]) -> None:
        for name, value in self.facts.items():
            if found.get(name) != value:
                shown = sanitize_line(f"{name}: {found.get(name)} ≠ {value}", 200)
                host = socket.gethostname()
                raise MedchatError(
                    say(
                        f"{host} 上的数据或设置与启动处不同：{shown}",
                        f"data or settings on {host} differ from those where the run was started: {shown}",
                    ),
                    say(
                        "各台机器要用同一版 MedChat、同一份数据和同样的配置；设置可以写成命令行选项",
                        "all machines need one version of MedChat, one copy of the data and one configuration;"
                        " settings may be given as flags",
                    ),
                )


@dataclass(frozen=True)
class News:
    """What a worker has to report: new `lines`, whether it was `started`, and its exit code once it has ended."""

    node: str
    started: bool
    lines: tuple[str, ...] = ()
    exit_code: int | None = None


class ShareWorker:
    """Answers one share in a thread of its own, so that it can be asked for news meanwhile.

    The whole process is its: standard output and error are read, the variables of the share are set.
    """

    def __init__(self) -> None:
        self._said = _SaidLines()
        self._thread: threading.Thread | None = None
        self._exit_code: int | None = None

    def start(self, share: Share) -> None:
        """Begin to answer."""
        os.environ.update(share.environment)
        set_language(share.language)
        sys.stdout = sys.stderr = self._said
        self._thread = threading.Thread(target=self._work, args=(share,), name="share", daemon=True)
        self._thread.start()

    def news(self) -> News:
        """Return what has happened since the last call; waits a moment for it."""
        if self._thread is not None:
            self._thread.join(NEWS_SECONDS)
        code = self._exit_code  # before the lines: after the code there are none
        return News(socket.gethostname(), self._thread is not None, self._said.take(), code)

    def _work(self, share: Share) -> None:
        code = DEFECT
        try:
            code = exit_code_of(share.answer, debug=share.debug)
        finally:
            self._exit_code = code


class _SaidLines(io.TextIOBase):
    """A text stream that keeps what is written until it is taken, line by line."""

    def __init__(self) -> None:
        self._text = ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            self._text += text
        return len(text)

    def take(self) -> tuple[str, ...]:
        """Return the whole lines written since the last call."""
        with self._lock:
            whole, end, self._text = self._text.rpartition("\n")
        return tuple(whole.split("\n")) if end else ()
