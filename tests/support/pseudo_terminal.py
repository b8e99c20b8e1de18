"""A pseudo-terminal with a screen to look at, on which `scripted_chat` runs, or another program."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from child_process import child_environment, start_python
from fork_server import own_terminal

#: What the interpreter runs that has a folder's scripted chat.
SCRIPTED_CHAT = ("-m", "scripted_chat")


class Terminal:
    """A pseudo-terminal of some size, the chat running on it, and what a person would see."""

    def __init__(
        self,
        folder: Path,
        script: Mapping[str, Any],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        import pyte

        class Screen(pyte.HistoryScreen):
            def write_process_input(screen, data: str) -> None:
                os.write(self._master, data.encode())

        self.folder = folder
        folder.joinpath("script.json").write_text(json.dumps(script), encoding="utf-8")
        self._master, self._slave = pty.openpty()
        self._set_size(columns, rows)
        self.attributes_before = termios.tcgetattr(self._slave)
        self.screen = Screen(columns, rows, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = bytearray()
        self._lock = threading.Lock()
        self._done = threading.Event()
        options = {**dict.fromkeys(("stdin", "stdout", "stderr"), self._slave), "cwd": cwd}
        inherited = chat_environment(environment or {})
        program, *arguments = command or (sys.executable, *SCRIPTED_CHAT, str(folder))
        if program == sys.executable:
            self.process = start_python(*arguments, environment=inherited, on_terminal=True, **options)
        else:
            self.process = subprocess.Popen(
                [program, *arguments], env=inherited, preexec_fn=own_terminal, **options
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # ------------------------------------------------------------ what is seen

    def shown(self) -> list[str]:
        """Return the screen's rows, blanks at their ends removed."""
        with self._lock:
            return self._rows()

    def cursor_row(self) -> str:
        """Return the row in which the cursor stands."""
        with self._lock:
            return self._rows()[self.screen.cursor.y]

    def everything(self) -> list[str]:
        """Return the scrollback and the screen, top to bottom."""
        with self._lock:
            above = [_row_text(row, self.screen.columns) for row in self.screen.history.top]
            return [*above, *self._rows()]

    def attributes(self) -> list[Any]:
        """Return the terminal's settings as termios gives them."""
        return termios.tcgetattr(self._slave)

    def journal(self) -> list[dict[str, Any]]:
        """Return what the session recorded so far."""
        path = self.folder / "journal.jsonl"
        if not path.exists():
            return []
        whole = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last one may be half written
        return [json.loads(line) for line in whole]

    # ------------------------------------------------------------ what is done

    def type(self, text: str) -> None:
        """Press the keys of `text`."""
        data = text.encode()
        while data:
            data = data[os.write(self._master, data) :]

    def paste(self, text: str) -> None:
        """Paste `text` as a terminal does: its line ends as Enter, in brackets if the program asked for them."""
        keys = text.replace("\n", "\r")
        bracketed = (2004 << 5) in self.screen.mode  # pyte keeps private modes shifted
        self.type(f"\x1b[200~{keys}\x1b[201~" if bracketed else keys)

    def enter(self, line: str) -> None:
        """Type `line` (one row of it) at the prompt and send it."""
        self.wait_for_prompt()
        self.type(line)
        self.wait_for_prompt(line)
        self.type("\r")
        self.wait(lambda: self.cursor_row() != f"› {line}", f"{line!r} sent")

    def open_gate(self, name: str) -> None:
        """Let the scripted model continue."""
        (self.folder / name).touch()

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size; the chat gets SIGWINCH."""
        with self._lock:
            self.screen.resize(rows, columns)
        self._set_size(columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def hang_up(self) -> None:
        """Close the window."""
        self._done.set()  # first: a reader at a closed number might read what another file then gets
        self._reader.join()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    # ------------------------------------------------------------ waiting

    def wait(self, condition: Callable[[], object], what: str = "", seconds: float = 20.0) -> None:
        """Wait until `condition` holds; fail with the screen if it never does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never saw {what}; the screen:\n" + "\n".join(self.everything()))
            time.sleep(0.01)

    def wait_for(self, *texts: str) -> None:
        """Wait until each of `texts` is in some row of the screen."""
        for text in texts:
            self.wait(lambda text=text: any(text in row for row in self.shown()), repr(text))

    def wait_until_taken(self) -> None:
        """Wait until the chat has read every key that was pressed."""
        unread = bytearray(4)

        def taken() -> bool:
            fcntl.ioctl(self._slave, termios.FIONREAD, unread)
            return not any(unread)

        self.wait(taken, "every key taken")

    def wait_for_prompt(self, typed: str = "") -> None:
        """Wait until the cursor is in a prompt behind `typed`."""
        self.wait(lambda: self.cursor_row() == f"› {typed}".rstrip(), f"a prompt with {typed!r}")

    def exit_code(self, seconds: float = 20.0) -> int:
        """Wait for the chat to end and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                "the chat did not end; the screen:\n" + "\n".join(self.everything())
            ) from None

    def close(self) -> None:
        """End the chat, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._master >= 0:
            self.hang_up()

    def _rows(self) -> list[str]:
        """The screen's rows. pyte's own `display` fails where half of a wide character was written over."""
        return [_row_text(self.screen.buffer[y], self.screen.columns) for y in range(self.screen.lines)]

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while not self._done.is_set():
            if select.select([self._master], [], [], 0.02)[0]:
                data = os.read(self._master, 65536)
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)


def rows_under(rows: list[str], first: str, last: str) -> list[str]:
    """Return what is on the screen below the row `first` and above the next one that begins with `last`."""
    start = rows.index(first) + 1
    return rows[start : next(end for end in range(start, len(rows)) if rows[end].startswith(last))]


def _row_text(row: Any, width: int) -> str:
    return "".join(row[column].data for column in range(width)).rstrip()


def chat_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a chat under test: a colour terminal, UTF-8, our source tree, `changes`."""
    inherited = child_environment(TERM="xterm-256color")
    for name in ("COLUMNS", "LINES", "VISUAL", "EDITOR"):
        inherited.pop(name, None)
    return inherited | changes


@contextmanager
def terminal(folder: Path, script: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Terminal]:
    """Run a scripted chat on a terminal of its own; see `Terminal`."""
    opened = Terminal(folder, script or {}, **options)
    try:
        yield opened
    finally:
        opened.close()
