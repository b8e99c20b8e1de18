"""Signals come at any moment, in the middle of a write too: nothing is raised that nobody asked for."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading

import pytest

from medchat.cli.signals import cancel_on_signals
from medchat.repl.keyboard import write_to_terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupting(io.RawIOBase):
    """A file that sends this process a signal while the first write to it is under way."""

    def __init__(self, number: signal.Signals) -> None:
        self._number: signal.Signals | None = number
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        number, self._number = self._number, None
        if number is not None:
            os.kill(os.getpid(), number)
        self.written += bytes(content)
        return len(content)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_middle_of_a_write_is_announced_on_the_same_stream(number: signal.Signals) -> None:
    raw = Interrupting(number)
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")

    def say(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    cancel = threading.Event()
    with cancel_on_signals(cancel, on_first=lambda: say("stopping")) as codes:
        say("a step")
    assert cancel.is_set() and codes == [
        {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}[number]
    ]
    assert sorted(raw.written.decode().split("\n")) == ["", "a step", "stopping"]


def test_only_the_first_signal_is_announced_and_before_the_block_is_left() -> None:
    said: list[str] = []
    cancel = threading.Event()
    with cancel_on_signals(cancel, on_first=lambda: said.append("stopping")):
        for number in SIGNALS:
            os.kill(os.getpid(), number)
    assert said == ["stopping"]
    with cancel_on_signals(cancel, on_first=lambda: said.append("never")):
        pass
    assert said == ["stopping"]
    assert not [thread for thread in threading.enumerate() if thread.name == "announce-signal"]


@pytest.mark.terminal
def test_suspending_in_the_middle_of_a_write_to_the_terminal_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the handler of Ctrl-Z writes goes past the buffer that the answer is being written through."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as seen, os.fdopen(writer, "wb") as terminal:
        inner = io.BufferedWriter(Reentrant())
        monkeypatch.setattr(sys, "__stdout__", Stdout(inner, terminal.fileno()))
        Reentrant.action = lambda: write_to_terminal("\x1b[?2004h")
        inner.write(b"an answer")
        inner.flush()
        terminal.close()
        assert seen.read() == b"\x1b[?2004h"


class Reentrant(io.RawIOBase):
    """Calls `action` while a write is under way, as a signal handler does."""

    action = staticmethod(lambda: None)

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        type(self).action()
        return len(content)


class Stdout(io.TextIOWrapper):
    """A text stream over `buffer` that has a terminal's descriptor."""

    def __init__(self, buffer: io.BufferedWriter, descriptor: int) -> None:
        super().__init__(buffer, encoding="utf-8")
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor
