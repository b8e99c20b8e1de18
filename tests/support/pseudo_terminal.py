"""A pseudo-terminal with a screen to look at, and a chat with a scripted model to run on it.

Run as a program, this file is the chat: its one argument is a folder with `script.json`. Answers are
scripted by question: a list of pieces, where {"gate": NAME} waits until the test opens that gate and
{"endless": TEXT} says TEXT until it is stopped. Nothing waits for a fixed time.
"""

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

from locations import ROOT

from medchat.api import (
    Completion,
    Conversation,
    Delta,
    Finish,
    GenerationConfig,
    Notice,
    Segment,
    SlashCommand,
    Text,
    Turn,
)
from medchat.errors import CheckpointError

# ---------------------------------------------------------------- the chat under test


class WholeHistory:
    """A template that is the question alone, after the earlier ones."""

    name = "scripted"
    stop: tuple[str, ...] = ()
    multi_turn = True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """One segment a turn."""
        return (*(Text(turn.question + turn.answer) for turn in turns), Text(question))


class ScriptedModel:
    """Says what the script says. One character is one token."""

    def __init__(self, folder: Path, script: Mapping[str, Any]) -> None:
        self.context_length = int(script.get("context_length", 2048))
        self._folder = folder
        self._answers = {question: list(pieces) for question, pieces in script.get("answers", {}).items()}
        self._asked = 0

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Yield the scripted pieces; each time the same question is asked, its next script if it has several."""
        question = segments[-1].text if isinstance(segments[-1], Text) else ""
        self._asked += 1
        pieces = self._answers.get(question, [f"第{self._asked}次回答：{question}"])
        prompt, count = self.count(segments), 0
        for text in self._texts(pieces, cancel):
            if cancel.is_set():
                yield Delta("", count, prompt, 0, Finish.CANCELLED)
                return
            count += len(text)
            yield Delta(text, count, prompt)
        finish = Finish.LENGTH if count >= config.max_new_tokens else Finish.STOP
        yield Delta("", count, prompt, 0, Finish.CANCELLED if cancel.is_set() else finish)

    def _texts(self, pieces: Sequence[Any], cancel: threading.Event) -> Iterator[str]:
        for piece in pieces:
            if isinstance(piece, str):
                yield piece
            elif "gate" in piece:
                _wait_for_gate(self._folder / piece["gate"], cancel)
            elif "endless" in piece:
                while not cancel.is_set():
                    yield piece["endless"]
                    time.sleep(0.005)
            elif "fail" in piece:
                raise RuntimeError(piece["fail"])

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        """Not part of a chat."""
        raise NotImplementedError

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Not part of a chat."""
        raise NotImplementedError

    def count(self, segments: Sequence[Segment]) -> int:
        """One token a character."""
        return sum(len(segment.text) for segment in segments if isinstance(segment, Text))

    def describe(self) -> dict[str, Any]:
        """What `/stats` shows."""
        facts = {"backbone": "scripted", "model": "tiny", "dtype": "float32", "device": "cpu"}
        return facts | {"adapters": ("folder/first",), "notes": ["注意其一", "注意其二"]}

    def close(self) -> None:
        """Nothing to give back."""


class Journal:
    """A recorder that writes each change to a file, as the session store would."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, turn: Turn, stats: object, context: object) -> None:
        """Append one turn."""
        self._write({"save": [turn.question, turn.answer, turn.finish.value]})

    def replace(self, turn: Turn, stats: object, context: object) -> None:
        """Put a turn in the place of the last one."""
        self._write({"replace": [turn.question, turn.answer, turn.finish.value]})

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Change every text."""
        self._write({"rewrite": change("我叫张三")})

    def undo(self, count: int) -> None:
        """Take back turns."""
        self._write({"undo": count})

    def _write(self, entry: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()


def _wait_for_gate(gate: Path, cancel: threading.Event | None = None) -> None:
    while not gate.exists() and not (cancel is not None and cancel.is_set()):
        time.sleep(0.005)


def _startup(folder: Path, script: Mapping[str, Any]) -> Any:
    from medchat.chat.session import ChatSession
    from medchat.medical_safety import advise, review_answer
    from medchat.repl import Startup

    notices = [Notice(text, urgent) for text, urgent in script.get("notices", [])]

    said_early: set[str] = set()

    def open_session() -> ChatSession:
        if gate := script.get("load_gate"):
            _wait_for_gate(folder / gate)
        for line in script.get("load_prints", []):
            print(line, file=sys.stderr)
        if reason := script.get("load_fails"):
            raise CheckpointError(reason, "medchat models show 目录")
        return ChatSession(
            ScriptedModel(folder, script),
            WholeHistory(),
            GenerationConfig(**script.get("generation", {})),
            recorder=Journal(folder / "journal.jsonl"),
            advisers=(
                lambda conversation, question: notices,
                *((advise,) if script.get("red_flags") else ()),
            ),
            reviewers=(review_answer,),
            guard_loops=bool(script.get("guard_loops")),
            said_early=said_early,
        )

    def early_notices(question: str) -> list[Notice]:
        due = [notice for notice in advise(Conversation(), question) if script.get("red_flags")]
        said_early.update(notice.text for notice in due)
        return due

    def remember(text: str) -> None:
        with (folder / "inputs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(text, ensure_ascii=False) + "\n")

    return Startup(
        open_session=open_session,
        model_label="scripted",
        opening=tuple(script.get("opening", ())),
        style=script.get("style", "rich"),
        past_inputs=tuple(script.get("past_inputs", ())),
        remember_input=remember,
        early_notices=early_notices,
        ready_lines=lambda session: tuple(script.get("ready_lines", ())),
        slash_commands=lambda: (
            SlashCommand("pulse", "脉搏", {"zh": "测试插件"}, lambda conversation, words: f"脉搏 {words}"),
            SlashCommand("crash", "崩溃", {"zh": "测试插件"}, lambda conversation, words: words[99]),
            SlashCommand("exit", "离开", {"zh": "想取代内置命令"}, lambda conversation, words: "被取代"),
        ),
    )


def run_scripted_chat(folder: Path) -> int:
    """Run the chat of `folder/script.json` on this process's terminal and return its exit code."""
    from medchat.cli.failures import show_failure
    from medchat.repl import run_lines, run_repl

    script = json.loads((folder / "script.json").read_text(encoding="utf-8"))
    try:
        startup = _startup(folder, script)
        return run_lines(startup, sys.stdin.buffer) if script.get("lines") else run_repl(startup)
    except Exception as error:
        return show_failure(error, debug=bool(os.environ.get("MEDCHAT_TEST_DEBUG")))


# ---------------------------------------------------------------- the terminal


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
        self.process = subprocess.Popen(
            list(command or (sys.executable, __file__, str(folder))),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=chat_environment(environment or {}),
            preexec_fn=_own_terminal,
            close_fds=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # ------------------------------------------------------------ what is seen

    def shown(self) -> list[str]:
        """Return the screen's rows, blanks at their ends removed."""
        with self._lock:
            return [row.rstrip() for row in self.screen.display]

    def cursor_row(self) -> str:
        """Return the row in which the cursor stands."""
        with self._lock:
            return self.screen.display[self.screen.cursor.y].rstrip()

    def everything(self) -> list[str]:
        """Return the scrollback and the screen, top to bottom."""
        with self._lock:
            width = self.screen.columns
            above = [_row_text(row, width) for row in self.screen.history.top]
            return [*above, *(row.rstrip() for row in self.screen.display)]

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
        """Let the scripted model go on."""
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
        """Wait until each of `texts` stands in some row of the screen."""
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
        """Wait until the cursor stands in a prompt behind `typed`."""
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

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while not self._done.is_set():
            if select.select([self._master], [], [], 0.02)[0]:
                data = os.read(self._master, 65536)
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)


def _row_text(row: Any, width: int) -> str:
    return "".join(row[column].data for column in range(width)).rstrip()


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def chat_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a chat under test: a colour terminal, UTF-8, our source tree, `changes`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "COLUMNS", "LINES", "LC_ALL", "VISUAL", "EDITOR")
    }
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": path, **changes}


@contextmanager
def terminal(folder: Path, script: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Terminal]:
    """Run a scripted chat on a terminal of its own; see `Terminal`."""
    opened = Terminal(folder, script or {}, **options)
    try:
        yield opened
    finally:
        opened.close()


if __name__ == "__main__":
    sys.exit(run_scripted_chat(Path(sys.argv[1])))
