"""Writing to the standard streams: a closed pipe is quiet, and no encoding can crash the program."""

from __future__ import annotations

import os
import sys

#: The reader went away (`medchat ask … | head -1`): not an error of ours, and nothing to say.
CLOSED_PIPE = 0


def forgive_encoding() -> None:
    """Write characters that the terminal's encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Point the closed standard output at nothing, so that the interpreter's last flush is quiet too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_out(text: str) -> int:
    """Write `text` to stdout and return the exit code: 0, also where the reader has gone."""
    forgive_encoding()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        return CLOSED_PIPE
    return 0


def say_aside(text: str) -> None:
    """Write one line to stderr: everything that is not the answer goes there."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass
